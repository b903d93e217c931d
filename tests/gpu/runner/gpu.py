"""The machine: what it is, and what of its device memory is in use. Asked of nvidia-smi, which is no CUDA program."""

import functools
import os
import platform
import shutil
import subprocess
import time

# Memory that the driver counts differently from one look to the next.
TOLERANCE_MIB = 16


def _smi(*arguments):
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def architecture(default):
    found = _smi("--query-gpu=compute_cap", "--format=csv,noheader")
    words = (found or "").splitlines()
    return "sm_" + words[0].strip().replace(".", "") if words and "." in words[0] else default


def memory_used_mib():
    found = _smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")
    try:
        return [int(line) for line in found.splitlines()] if found else None
    except ValueError:
        return None


def processes():
    found = _smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    return None if found is None else [line for line in found.splitlines() if line.strip()]


def left_over(before, limit=5.0):
    """What device memory and processes are there that were not `before`. The driver gives back a killed process's memory within a
    tenth of a second or so."""
    until = time.monotonic() + limit
    while True:
        now, programs = memory_used_mib(), processes()
        if before is None or now is None:
            return {"memory_mib": None, "processes": programs}
        more = [b - a for a, b in zip(before, now)]
        if (all(m <= TOLERANCE_MIB for m in more) and not programs) or time.monotonic() > until:
            return {"memory_mib": max(more), "processes": programs}
        time.sleep(0.1)


def describe():
    """The machine, for the header of the results."""
    name = _smi("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    cpu = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {
        "gpu": (name or "none").splitlines()[0],
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "nvcc": _version(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"),
    }


def _version(nvcc):
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in done.stdout.splitlines() if "release" in line]
    return lines[0].split("release", 1)[1].strip() if lines else None
