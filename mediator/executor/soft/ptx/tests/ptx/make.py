#!/usr/bin/env python3
"""Compile every .cu in this folder to .ptx with NVRTC from the PyPI wheels (see README.md)."""
import ctypes, glob, os, sys

import nvidia

base = os.path.join(list(nvidia.__path__)[0], "cu13")
n = ctypes.CDLL(glob.glob(base + "/lib/libnvrtc.so.*")[0])
here = os.path.dirname(os.path.abspath(__file__))


def build(src, dst, extra):
    text = open(src, "rb").read()
    prog = ctypes.c_void_p()
    assert n.nvrtcCreateProgram(ctypes.byref(prog), text, os.path.basename(src).encode(), 0, None, None) == 0
    opts = [b"--gpu-architecture=compute_80", b"--device-int128", b"-I" + (base + "/include").encode(), b"-I" + (base + "/include/cccl").encode()] + extra
    rc = n.nvrtcCompileProgram(prog, len(opts), (ctypes.c_char_p * len(opts))(*opts))
    size = ctypes.c_size_t()
    n.nvrtcGetProgramLogSize(prog, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    n.nvrtcGetProgramLog(prog, log)
    if rc:
        sys.exit(src + "\n" + log.value.decode())
    n.nvrtcGetPTXSize(prog, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    n.nvrtcGetPTX(prog, ptx)
    open(dst, "wb").write(ptx.value)
    print(dst, len(ptx.value))


for src in sys.argv[1:] or sorted(glob.glob(here + "/*.cu")):
    build(src, src[:-3] + ".ptx", [])
    if os.path.basename(src) in ("program.cu", "shared.cu", "basic.cu"):
        build(src, src[:-3] + ".debug.ptx", [b"-G"])
