"""PyTorch on two devices, one case a process: `two_devices.py CASE`."""

import contextlib
import os
import sys
import tempfile

from common import attempt, digest, fact, note, skip

try:
    import torch
except ImportError as why:
    skip(f"no PyTorch: {why}")


# Seconds that a rank may take; an emulated CPU is slow.
PATIENCE = float(os.environ.get("VGPU_RANK_SECONDS", "70"))


def of(tensor):
    flat = tensor.detach().cpu().contiguous()
    return f"{tuple(flat.shape)} {digest(flat.view(torch.uint8).numpy().tobytes())}"


def generate(*shape, seed, device):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@contextlib.contextmanager
def logged():
    """A folder where NCCL keeps its log, if it has not begun yet."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,P2P,SHM", NCCL_DEBUG_FILE=folder + "/nccl.%p")
        yield folder


def transports(folder):
    """How NCCL says that it moves data, and what it warns of: for people."""
    ways, warnings = set(), set()
    for name in os.listdir(folder):
        if name.startswith("nccl."):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                for line in file:
                    if " via " in line:
                        ways.add(line.split(" via ")[1].strip())
                    elif "WARN" in line:
                        warnings.add(line.strip()[-200:])
    for way in sorted(ways)[:12]:
        note("nccl via", way)
    for warning in sorted(warnings)[:12]:
        note("nccl warns", warning)


def tensors():
    """Tensors on either device, copies between them, kernels that reach over, and what PyTorch says of both."""
    for index in range(2):
        about = torch.cuda.get_device_properties(index)
        fact("device", index, about.name, about.total_memory, about.multi_processor_count, str(getattr(about, "uuid", "")))
        fact("can reach", index, [torch.cuda.can_device_access_peer(index, other) for other in range(2) if other != index])
    a, b = generate(513, 257, seed=1, device="cuda:0"), generate(257, 129, seed=2, device="cuda:1")
    attempt("on the second", lambda: of(b @ b.t()))
    attempt("first to second", lambda: of(a.to("cuda:1") @ b))
    attempt("second to first", lambda: of(a @ b.to("cuda:0")))
    attempt("apart", lambda: a @ b)
    large = torch.arange(8 << 20, device="cuda:0", dtype=torch.int32)
    attempt("large", lambda: of(large.to("cuda:1").roll(1)))
    attempt("strided", lambda: of(a.t()[::2].to("cuda:1")))
    attempt("into", lambda: of(torch.empty(513, 257, device="cuda:1").copy_(a)))
    attempt("pinned", lambda: of(torch.arange(100000).pin_memory().to("cuda:1", non_blocking=True)))
    streams = [torch.cuda.Stream(device=index) for index in range(2)]

    def hand_over():
        x = torch.zeros(1 << 20, device="cuda:0")
        y = torch.zeros(1 << 20, device="cuda:1")
        torch.cuda.synchronize(0)
        torch.cuda.synchronize(1)
        for _ in range(20):
            with torch.cuda.stream(streams[0]):
                x += 1
                done = streams[0].record_event()
            with torch.cuda.stream(streams[1]):
                streams[1].wait_event(done)
                y.copy_(x, non_blocking=True)
                y *= 2
                done = streams[1].record_event()
            with torch.cuda.stream(streams[0]):
                streams[0].wait_event(done)
                x.copy_(y, non_blocking=True)
        torch.cuda.synchronize()
        return float(x[0]), float(y[-1])

    attempt("in turn", hand_over)
    attempt("memory", lambda: [torch.cuda.memory_allocated(index) > 0 for index in range(2)])
    attempt("current", lambda: (torch.cuda.current_device(), torch.cuda.device_count()))

    def broadcast():
        from torch.nn.parallel import comm

        parts = comm.broadcast_coalesced([a, a * 2], [0, 1])
        gathered = comm.gather(comm.scatter(a, [0, 1]), dim=0, destination=1)
        return [of(t) for part in parts for t in part] + [of(gathered)]

    # NCCL's first use in this program.
    with logged() as folder:
        attempt("broadcast and gather", broadcast)
        transports(folder)
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32).to("cuda:0"), torch.nn.ReLU(), torch.nn.Linear(32, 8).to("cuda:1"))

    def train():
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for step in range(3):
            hidden = model[1](model[0](generate(16, 64, seed=step, device="cuda:0")))
            loss = model[2](hidden.to("cuda:1")).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item().hex())
        return losses

    attempt("a model on both", train)


def _rank(rank, folder, queue):
    import torch.distributed as dist

    said = []
    say = lambda name, value: said.append((name, value))  # noqa: E731
    try:
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        device = f"cuda:{rank}"
        for count in (17, 100_000, 4 << 20):
            x = generate(count, seed=rank + 1, device=device)
            dist.all_reduce(x)
            say(f"all_reduce of {count}", of(x))
            parts = [torch.empty_like(x) for _ in range(2)]
            dist.all_gather(parts, x + rank)
            say(f"all_gather of {count}", [of(part) for part in parts])
        x = generate(1 << 20, seed=rank + 5, device=device)
        dist.broadcast(x, 1)
        say("broadcast", of(x))
        out = torch.empty(1 << 19, device=device)
        dist.reduce_scatter_tensor(out, x)
        say("reduce_scatter", of(out))
        swapped = torch.empty_like(x)
        dist.all_to_all_single(swapped, x * (rank + 1))
        say("all_to_all", of(swapped))
        if rank == 0:
            dist.send(x + 3, 1)
        else:
            dist.recv(x, 0)
            say("received", of(x))
        torch.manual_seed(7)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 64).to(device), device_ids=[rank])
        for step in range(3):
            model.zero_grad()
            model(generate(32, 64, seed=10 * rank + step, device=device)).square().mean().backward()
            say(f"gradient {step}", of(model.module.weight.grad))
        graph, y = torch.cuda.CUDAGraph(), torch.ones(1000, device=device)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            dist.all_reduce(y)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            dist.all_reduce(y)
        graph.replay()
        torch.cuda.synchronize()
        say("in a graph", float(y[0]))
        del graph
        dist.barrier()
        dist.destroy_process_group()
        say("over", True)
    except Exception as error:  # noqa: BLE001 - a fact as well
        say("failed", f"{type(error).__name__} {str(error).splitlines()[0][:200] if str(error) else ''}")
        # NCCL's own words are in the lines after the first.
        note(f"rank {rank}:", " / ".join(line.strip() for line in str(error).splitlines())[:800])
    from common import _library

    _library()
    queue.put((rank, said))


def nccl():
    """Two ranks in two processes."""
    import torch.distributed as dist
    import torch.multiprocessing as mp

    if not dist.is_nccl_available():
        skip("no NCCL in this PyTorch")
    context = mp.get_context("spawn")
    with logged() as folder:
        queue = context.Queue()
        ranks = [context.Process(target=_rank, args=(rank, folder, queue)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        said = {}
        try:
            for _ in ranks:
                rank, facts = queue.get(timeout=PATIENCE)
                said[rank] = facts
        except Exception as error:  # noqa: BLE001 - a rank that says nothing
            fact("a rank", "says nothing:", type(error).__name__)
        for rank in ranks:
            rank.join(10)
            if rank.is_alive():
                rank.kill()
        for rank in sorted(said):
            for name, value in said[rank]:
                fact(f"rank {rank}, {name}", value)
        fact("exits", [rank.exitcode for rank in ranks])
        transports(folder)


def nccl_threads():
    """Two ranks in one process."""
    from torch.cuda import nccl as direct

    with logged() as folder:
        x = [generate(100_003, seed=index, device=f"cuda:{index}") for index in range(2)]
        attempt("available", lambda: direct.is_available(x))
        attempt("all_reduce", lambda: direct.all_reduce(x))
        attempt("sums", lambda: [of(t) for t in x])
        attempt("broadcast", lambda: direct.broadcast(x))
        attempt("copies", lambda: [of(t) for t in x])
        out = [torch.empty(2 * 100_003, device=f"cuda:{index}") for index in range(2)]
        attempt("all_gather", lambda: direct.all_gather(x, out))
        attempt("gathered", lambda: [of(t) for t in out])
        torch.cuda.synchronize(0)
        torch.cuda.synchronize(1)
        transports(folder)


CASES = {"tensors": tensors, "nccl": nccl, "nccl_threads": nccl_threads}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        fact("CUDA", "is not available")
        note(torch.__version__)
        sys.exit(1)
    if torch.cuda.device_count() < 2:
        skip("one GPU")
    CASES[sys.argv[1]]()
