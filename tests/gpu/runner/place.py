"""Where things are, what is compiled with what, and the environment of the two kinds of run."""

import glob
import os
import shutil
import subprocess
import sys
import threading

from . import execute, gpu

# Beside what a bundle has: where CUDA's header may be.
HEADERS = ["/usr/local/cuda/include", "/opt/cuda/include"]
COMPILER_LIMIT = 90.0


class Missing(Exception):
    """A row cannot run here; the text says why."""


def _cuda_h():
    homes = [os.path.join(os.environ[name], "include") for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    wheels = [path for folder in sys.path for path in glob.glob(os.path.join(folder, "nvidia/*/include"))]
    for folder in homes + HEADERS + wheels:
        if os.path.exists(os.path.join(folder, "cuda.h")):
            return folder
    return None


def _nvcc():
    found = shutil.which("nvcc")
    if found is None and os.path.exists("/usr/local/cuda/bin/nvcc"):
        found = "/usr/local/cuda/bin/nvcc"
    return found


class Place:
    """Paths: `root` is the bundle; `work` is where programs are compiled and caches lie."""

    def __init__(self, options, root, work):
        self.root, self.work = root, work
        self.daemon = os.path.abspath(options.daemon or os.path.join(root, "bin/vhost-user-vgpu"))
        self.shim = os.path.abspath(options.shim or os.path.join(root, "lib"))
        self.headers = os.path.abspath(options.headers or os.path.join(root, "include"))
        self.parity = os.path.abspath(options.parity or os.path.join(root, "parity"))
        self.programs = os.path.join(root, "programs")
        self.checks = os.path.abspath(options.checks or os.path.join(root, "checks"))
        # The unpacked vm.tar.xz, once there is a guest (guest.py).
        self.vm = os.path.abspath(options.vm) if options.vm else None
        self.build = os.path.join(work, "build")
        self.caches = os.path.join(work, "caches")
        self.images = os.path.join(work, "images")
        self.cuda_include = options.cuda_include or _cuda_h()
        self.nvcc = _nvcc()
        self.python = options.python or shutil.which("python3") or sys.executable
        self.native_lib, self.executor = options.native_lib, options.executor
        # The GPUs that native runs see: as the daemon counts them, by PCI address.
        self.chosen = {"CUDA_VISIBLE_DEVICES": options.gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if options.gpu else {}
        self.socket = os.path.join(work, "vgpu.sock")
        # The devices that the daemons are told to give.
        given = {"--gpu": options.gpu, "--soft-devices": options.soft_devices}
        self.devices = [word for name, value in given.items() if value for word in (name, value)]
        self.profile = os.path.abspath(options.profile) if options.profile else None
        self.turns, self.turn = {}, threading.Lock()
        for folder in (self.build, self.caches, self.images):
            os.makedirs(folder, exist_ok=True)
        self._mend()
        # A process of this machine has the machine's own NVML, and tools that only that one serves (nvidia-smi): it gets our libcuda
        # alone.
        self.local = os.path.join(work, "local")
        os.makedirs(self.local, exist_ok=True)
        for library in ("libcuda.so.1", "libcuda.so"):
            if not os.path.lexists(os.path.join(self.local, library)):
                os.symlink(os.path.join(self.shim, library), os.path.join(self.local, library))

    def arguments(self, daemon):
        """Arguments of a daemon's, by its name."""
        return self.devices + (["--profile", os.path.join(self.profile, daemon)] if self.profile else [])

    def _mend(self):
        """What may be lost on the bundle's way here: that the daemon may be executed, and the libraries' second names."""
        try:
            if os.path.exists(self.daemon) and not os.access(self.daemon, os.X_OK):
                os.chmod(self.daemon, 0o755)
            for library in ("libcuda.so", "libnvidia-ml.so"):
                second = os.path.join(self.shim, library)
                if os.path.isdir(self.shim) and not os.path.lexists(second):
                    os.symlink(library + ".1", second)
        except OSError:
            pass  # read-only: what does not work then says so itself

    def packages(self):
        """The versions of what the Python programs use."""
        program = (
            "import importlib.metadata as m\n"
            "for n in ('torch', 'triton', 'transformers', 'cupy-cuda13x', 'jax', 'numba-cuda', 'nvidia-nccl-cu13', 'nvidia-cudnn-cu13'):\n"
            "    try: print(n, m.version(n))\n"
            "    except m.PackageNotFoundError: pass\n"
        )
        ended = execute.run([self.python, "-c", program], dict(os.environ), 20.0)
        return dict(line.split() for line in ended.out.splitlines() if len(line.split()) == 2)

    def words(self, argv):
        """The words of a row with their places filled in."""
        names = {"python": self.python, "programs": self.programs, "checks": self.checks, "build": self.build, "root": self.root, "work": self.work}
        return [word.format(**names) for word in argv]

    def environment(self, extra):
        env = dict(os.environ)
        caches = {
            "CUDA_CACHE_PATH": "cuda", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "CUPY_CACHE_DIR": "cupy", "NUMBA_CACHE_DIR": "numba", "HF_HOME": "hf",
        }
        for name, folder in caches.items():
            env[name] = os.path.join(self.caches, folder)
            os.makedirs(env[name], exist_ok=True)
        env.update(
            VGPU_IMAGES=self.images, VGPU_BUILD=self.build, VGPU_ROOT=self.root, VGPU_WORK=self.work,
            PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="0", TOKENIZERS_PARALLELISM="false",
            HF_HUB_OFFLINE="1", CUBLAS_WORKSPACE_CONFIG=":4096:8", XLA_PYTHON_CLIENT_PREALLOCATE="false",
            TF_CPP_MIN_LOG_LEVEL="2", PYTHONUTF8="1",
        )
        for name in ("VGPU_TRANSPORT", "VGPU_SOCKET"):
            env.pop(name, None)
        env.update(extra)
        return env

    def native(self, extra):
        env = self.environment({**self.chosen, **extra})
        if self.native_lib:
            env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [self.native_lib, env.get("LD_LIBRARY_PATH")]))
        return env

    def ours(self, extra):
        env = self._with(self.local, extra)
        env.update(VGPU_TRANSPORT="local", VGPU_SOCKET=self.socket, VGPU_LOG="1", VGPU_DAEMON=self.daemon, VGPU_EXECUTOR=self.executor)
        if self.native_lib and self.native_lib != "none":
            env["VGPU_NATIVE_LIB"] = self.native_lib
        return env

    def _with(self, libraries, extra):
        env = self.environment(extra)
        env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [libraries, env.get("LD_LIBRARY_PATH")]))
        # Triton's way of finding it; it asks ldconfig otherwise, which knows the native one only.
        env["TRITON_LIBCUDA_PATH"] = libraries
        return env

    def in_guest(self, extra):
        """Our side in a guest, which has the same files at the same places."""
        env = self._with(self.shim, extra)
        env.update(VGPU_TRANSPORT="vm", TMPDIR="/tmp", VGPU_LOG="1")
        return env

    def compile(self, source, output, compiler, flags=()):
        """Compiles a source once, however many rows need it. Raises `Missing` with the compiler's words."""
        path = os.path.join(self.build, output)
        with self.turn:
            turn = self.turns.setdefault(output, threading.Lock())
        with turn:
            if os.path.exists(path):
                return path
            source = self.words([source])[0]
            source = source if os.path.isabs(source) else os.path.join(self.programs, source)
            if compiler == "nvcc":
                if self.nvcc is None:
                    raise Missing("there is no nvcc")
                command = [self.nvcc, "-O2", "-arch=" + gpu.architecture("sm_90"), source, "-I", self.headers, *flags, "-o", path + ".new"]
            else:
                cc = shutil.which("gcc") or shutil.which("cc")
                if cc is None:
                    raise Missing("there is no C compiler")
                if self.cuda_include is None:
                    raise Missing("there is no cuda.h")
                # Linked with our library for its names only: it exports every symbol of the driver. Which one is loaded is up to
                # LD_LIBRARY_PATH.
                command = [cc, "-O2", "-w", "-pthread", source, "-I", self.headers, "-isystem", self.cuda_include, *flags,
                           "-L", self.shim, "-l:libcuda.so.1", "-lm", "-ldl", "-o", path + ".new"]
            ended = execute.run(command, dict(os.environ), COMPILER_LIMIT)
            if ended.status != "ok":
                raise Missing(f"{os.path.basename(source)} does not compile: {ended.status}\n{(ended.err + ended.out)[:2000]}")
            os.rename(path + ".new", path)
            return path

    def make_images(self):
        """Machine code and fat binaries of the test kernels in several shapes, for tests/parity/basic.c. Without nvcc there are none,
        and the cases say so."""
        source = os.path.join(self.headers, "kernels.cu")
        if self.nvcc is None or not os.path.exists(source):
            return
        arch = gpu.architecture("sm_90")
        number = arch.removeprefix("sm_")
        code = ["-gencode", f"arch=compute_{number},code={arch}"]
        older = ["-gencode", "arch=compute_80,code=sm_80"]
        ptx = ["-gencode", "arch=compute_80,code=compute_80"]
        shapes = {
            "kernels.cubin": ["-cubin", "-arch=" + arch],
            "other.cubin": ["-cubin", "-arch=sm_75" if number != "75" else "-arch=sm_80"],
            "one.fatbin": ["-fatbin", "-no-compress", *code],
            "several.fatbin": ["-fatbin", "-no-compress", *older, *code, *ptx],
            "compressed.fatbin": ["-fatbin", "-Xfatbin=-compress-all", *older, *code, *ptx],
            "ptx.fatbin": ["-fatbin", "-Xfatbin=-compress-all", *ptx],
            "foreign.fatbin": ["-fatbin", "-gencode", "arch=compute_75,code=sm_75"],
            "linkable.cubin": ["-cubin", "-rdc=true", "-arch=" + arch],
        }
        children = []
        for name, flags in shapes.items():
            path = os.path.join(self.images, name)
            if not os.path.exists(path):
                command = [self.nvcc, *flags, source, "-o", path]
                children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for child in children:
            try:
                child.wait(COMPILER_LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()
