"""What there is to run. A row is a program that says facts; a phase is rows that may overlap, or, where each is measured, rows that run
alone. Within a phase the order is by value for the time. A row that has a guest runs our side in it, and the native side here."""

import os
from dataclasses import dataclass, field, replace

# Phases, in order.
CHEAP, ALONE, HEAVY, ALONE_LAST, GUEST, GUEST_ALONE = range(6)
MEASURED = (ALONE, ALONE_LAST, GUEST_ALONE)


@dataclass
class Row:
    name: str
    argv: list
    phase: int = HEAVY
    # Source, output, compiler ("cc" or "nvcc") and flags; several where a program needs several.
    build: list = field(default_factory=list)
    # Seconds for one run of one side.
    limit: float = 75.0
    env: dict = field(default_factory=dict)
    parity: bool = False
    # How often each side runs, in turn.
    rounds: int = 1
    # Facts that are left out of the comparison are said in the program; what a row shows is said here.
    shows: str = ""
    # The guest that our side runs in, of guest.KINDS.
    guest: str = ""
    # The program says marks, at which the guest's daemon is asked for its totals.
    counted: bool = False
    # Our side starts daemons of its own.
    daemons: bool = False
    # The program says marks, at which its VM is suspended and resumed: such a row runs alone.
    suspends: bool = False

    @property
    def transport(self):
        return "vm" if self.guest else "local"

    @property
    def key(self):
        """What tells it from every other row: the same program may run here and in a guest."""
        return "vm/" + self.name if self.guest else self.name


def parity(place):
    """A row for each C file of tests/parity."""
    rows = []
    if os.path.isdir(place.parity):
        for file in sorted(os.listdir(place.parity)):
            stem, extension = os.path.splitext(file)
            if extension == ".c":
                source = os.path.join(place.parity, file)
                rows.append(Row(
                    name="parity/" + stem, argv=["{build}/parity-" + stem], phase=CHEAP, parity=True, limit=60.0,
                    build=[(source, "parity-" + stem, "cc", ["-I", place.parity])],
                    shows="each driver call of the chapter: results, contents, errors",
                ))
    return rows


def _nvcc(stem, *, arguments=(), shared=False, name=None, flags=(), shows=""):
    output = name.replace("/", "-") if name else stem + ("-shared" if shared else "-static")
    return Row(
        name=name or "nvcc/" + output, argv=["{build}/" + output, *arguments], phase=CHEAP, limit=40.0, shows=shows,
        build=[(stem + ".cu", output, "nvcc", ["-cudart", "shared" if shared else "static", *flags])],
    )


def _python(name, script, *arguments, limit=75.0, env=None, phase=HEAVY, rounds=1, build=(), shows=""):
    return Row(
        name=name, argv=["{python}", "{programs}/" + script, *arguments], limit=limit, env=env or {}, phase=phase, rounds=rounds,
        build=list(build), shows=shows,
    )


ONCE = ("once.c", "once", "cc", [])
BENCH = ("bench.c", "bench", "cc", [])
WAITS = ("bench_waits.c", "bench_waits", "cc", [])
LOOPS = ("bench_loops.c", "bench_loops", "cc", [])
DEVICES = ("devices.c", "devices", "cc", [])
# NCCL over NVLink's multicast needs calls that this library refuses, and leaves the machine's switches alone.
NCCL = {"NCCL_NVLS_ENABLE": "0"}
# For the suites on an emulated CPU: seconds for one process of tests.
SLOW = {"VGPU_SUITE_SECONDS": "280"}


def programs():
    torch = lambda case, **more: _python("pytorch/" + case, "pytorch.py", case, **more)  # noqa: E731
    both = lambda case, **more: _python("two/" + case, "two_devices.py", case, **more)  # noqa: E731
    return [
        Row("devices/list", ["{build}/devices"], phase=CHEAP, build=[DEVICES], limit=30.0, shows="which devices a program sees"),
        _nvcc("runtime", shows="libcudart linked in: streams, events, copies, managed memory, textures, graphs, printf, errors"),
        _nvcc("runtime", shared=True, shows="the same with libcudart.so"),
        _nvcc("kernels", name="nvcc/kernels", flags=["-std=c++17"], shows="atomics, shuffles, cooperative groups, constant memory, device malloc"),
        _nvcc("kernels", name="nvcc/managed", flags=["-std=c++17", "-DMANAGED"], shows="the same with a managed variable"),
        *(_check("waiting " + case, shows="waits for streams, events and contexts, and questions about them") for case in
          ("results", "busy", "rounds", "freed")),
        _python("processes/20-in-a-row", "processes.py", "row", "20", phase=CHEAP, limit=60.0, build=[ONCE]),
        _python("processes/4-at-once", "processes.py", "once", "4", phase=CHEAP, limit=40.0, build=[ONCE]),
        _python("processes/killed", "processes.py", "killed", "3", phase=CHEAP, limit=40.0, build=[ONCE]),
        *(replace(_python("suspend/" + case, "suspended.py", case, phase=ALONE, limit=90.0, shows=f"{what}, its VM suspended and resumed in the middle"),
                  suspends=True)
          for case, what in (("gpt2", "generation with a GPT-2"), ("training", "training of a ResNet-50, pinned memory, a captured graph"))),
        Row("timing/driver", ["{build}/bench"], phase=ALONE, build=[BENCH], limit=40.0, rounds=2),
        Row("timing/waits", ["{build}/bench_waits"], phase=ALONE, build=[WAITS], limit=20.0, rounds=3, shows="waiting for the device, and asking it"),
        Row("timing/blocking", ["{build}/bench_waits", "blocking"], phase=ALONE, build=[WAITS], limit=20.0, rounds=3,
            shows="the same where waiting is sleeping (CU_CTX_SCHED_BLOCKING_SYNC)"),
        Row("timing/start", ["{build}/bench", "start"], phase=ALONE, build=[BENCH], limit=10.0, rounds=5),
        torch("matmul"),
        torch("resnet50", shows="5 training steps, losses bit by bit"),
        torch("gpt2", shows="generation with random weights"),
        torch("memory", shows="allocator statistics"),
        torch("graphs", shows="CUDA graphs"),
        torch("streams", shows="streams, events, pinned copies"),
        torch("loader", shows="DataLoader with pinned memory and workers"),
        _python("cupy/arrays", "cupy_arrays.py"),
        _python("triton/kernels", "triton_kernels.py"),
        torch("compile", limit=110.0, shows="torch.compile"),
        torch("expandable", env={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, shows="expandable segments"),
        torch("async", env={"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}, shows="the cudaMallocAsync allocator"),
        _python("jax/programs", "jax_programs.py"),
        _python(
            "llama.cpp/generate", "llama.py", limit=90.0, build=[("llama_run.c", "llama_run", "cc", ["-rdynamic"])],
            shows="greedy tokens, with flash attention and without; CUDA graphs; a pool of cuMemCreate",
        ),
        torch("share", shows="a tensor shared by two processes (CUDA IPC)"),
        torch("nccl", shows="torch.distributed with NCCL, one rank"),
        both("tensors", shows="PyTorch on two GPUs: copies between them, events, a model on both"),
        both("nccl", limit=110.0, env=NCCL, shows="torch.distributed with NCCL, two ranks on two GPUs"),
        both("nccl_threads", env=NCCL, shows="NCCL, two GPUs of one process"),
        _python("numba/kernels", "numba_kernels.py"),
        _python("suites/cuda-bindings", "suites.py", "cuda-bindings", limit=120.0, shows="cuda-python's own tests, as they are"),
        _python("suites/numba-cuda-cudadrv", "suites.py", "numba-cuda-cudadrv", limit=120.0, shows="numba-cuda's own tests of the driver, as they are"),
        torch("faults", shows="out of memory, a failed assertion in a kernel"),
        _python("timing/gpt2", "pytorch.py", "tokens", phase=ALONE_LAST, limit=60.0, rounds=1),
        _python("timing/llama-1b", "models.py", "llama", phase=ALONE_LAST, limit=75.0, shows="a Llama of 1.2 B, each step eager and as a CUDA graph"),
        # The first round finds the files cold.
        _python("timing/libraries", "models.py", "start", phase=ALONE_LAST, limit=60.0, rounds=3, shows="cuBLAS and cuDNN loaded"),
        _python("timing/at-once", "at_once.py", "launches", "gpt2", phase=ALONE_LAST, limit=150.0, build=[LOOPS], shows="four processes at once, and one"),
    ]


def sharing():
    """Several VMs on one device: each a daemon of its own, with a process of this host in place of a VM."""
    build = [("{checks}/" + stem + ".c", "check-" + stem, "cc", []) for stem in ("tenant", "processes", "quota")]
    case = lambda name, shows, limit: replace(_python(  # noqa: E731
        "sharing/" + name, "sharing.py", name, phase=ALONE_LAST, limit=limit, build=build, shows=shows), daemons=True)
    return [
        case("equal", "four that train the same model, and one: the sum of their rates, losses bit by bit", 110.0),
        case("weights", "device time by weight", 90.0),
        case("priority", "how long a step takes beside one that works all the time", 60.0),
        case("faults", "three that compute, and a fourth in which everything goes wrong", 240.0),
        case("quota", "each kind of allocation up to the quota, beside one who computes", 60.0),
        case("rotated", "two that need more memory together than there is, and take turns with it", 150.0),
        case("soak", "tenants that start and stop at random for eight minutes", 580.0),
    ]


def _check(line, **more):
    """A program of tests/programs."""
    stem, *arguments = line.split()
    return Row(
        name="checks/" + "-".join([stem, *arguments]), argv=["{build}/check-" + stem, *arguments], phase=CHEAP, limit=40.0,
        build=[("{checks}/" + stem + ".c", "check-" + stem, "cc", [])], **more,
    )


def guests(place):
    """What runs in a guest. An emulated CPU is ten to twenty times slower, so the limits are longer; memory that only a guest can
    register with the device has rows of its own. The first row is the one that is worth most, and takes longest."""
    named = {row.name: row for row in programs()}
    memory = lambda case, shows: Row(  # noqa: E731
        "memory/" + case, ["{build}/host_memory", case], limit=40.0, shows=shows, build=[("host_memory.c", "host_memory", "cc", [])])
    tensors = _python("pytorch/tensors", "tensors.py", shows="tensors made, computed with, multiplied, added up, copied back")
    small = [named["nvcc/" + name] for name in ("runtime-static", "runtime-shared", "kernels", "managed")]
    small += [
        memory("pinned", "cuMemHostAlloc: what the CPU, copies and kernels see of it"),
        memory("registered", "cuMemHostRegister: the same of the process's own memory"),
        memory("fork", "children of a process that uses CUDA, and that use it themselves"),
        _check("driver_api", shows="the demonstration: results checked against the CPU"),
        _check("nvml", shows="NVML: devices found by what CUDA says of them, memory, links; NVIDIA's library natively, ours in the guest"),
        *(_check("pinned " + case) for case in ("alloc", "register", "unmapped", "large")),
        *(_check("processes " + case) for case in ("fork-before", "fork-after")),
        named["processes/4-at-once"], named["processes/killed"],
    ]
    small += parity(place)
    # The tests of the suites that register host memory, which has no way without a kernel module.
    suites = [
        _python("suites/numba-registered", "suites.py", "numba-cuda-cudadrv", "test_pinned.py", "test_cuda_memory.py", "test_deallocations.py",
                env=SLOW, shows="of numba-cuda's tests those of pinned memory"),
        _python("suites/bindings-registered", "suites.py", "cuda-bindings", "test_cudart.py", "test_cufile.py", env=SLOW,
                shows="of cuda-python's tests those that register memory"),
    ]
    # Not those that look at what has not ended yet: an emulated CPU looks too late.
    large = [named["pytorch/" + name] for name in ("matmul", "graphs")]
    # What is measured in a guest runs alone. Times say nothing where a CPU is emulated; counts do, and what has no other way.
    alone = [
        Row("timing/register", ["{build}/bench", "register"], phase=GUEST_ALONE, build=[BENCH], guest="small", limit=150.0,
            shows="registered and pinned memory; the guest's CPU is emulated, so its times are no measure of a VM"),
        replace(_python("counted/driver", "counted.py", "{build}/bench_loops", "counted", phase=GUEST_ALONE, build=[LOOPS], limit=240.0,
                        shows="doorbells, interrupts and system calls of launches, waits and copies"), guest="small", counted=True),
        replace(_python("counted/pytorch", "counted.py", "{python}", "{programs}/models.py", "counted", phase=GUEST_ALONE, limit=420.0,
                        shows="the same of an eager loop of PyTorch"), guest="large", counted=True),
    ]
    return [
        replace(tensors, phase=GUEST, guest="large", limit=480.0),
        *(replace(row, phase=GUEST, guest="small", limit=150.0) for row in small),
        *(replace(row, phase=GUEST, guest="large", limit=300.0) for row in large + suites),
        *(replace(named["two/" + name], phase=GUEST, guest="large", limit=420.0, env={**named["two/" + name].env, "VGPU_RANK_SECONDS": "330"})
          for name in ("nccl", "tensors")),
        *alone,
    ]


def every(place):
    return sorted(parity(place) + programs() + sharing() + guests(place), key=lambda row: row.phase)


def chosen(rows, only, shard):
    """The rows whose name matches one of the patterns, and of those every n-th, counted from the i-th."""
    import fnmatch

    if only:
        rows = [row for row in rows if any(fnmatch.fnmatch(row.key, pattern) for pattern in only)]
    index, count = shard
    return [row for n, row in enumerate(rows) if n % count == index - 1]
