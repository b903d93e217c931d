"""PyTorch, one case a process: `pytorch.py CASE`."""

import os
import sys
import time

from common import attempt, digest, fact, note, skip, time_of

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as why:
    skip(f"no PyTorch: {why}")

DEVICE = "cuda"


def of(tensor):
    """A tensor's bytes, as a digest, with its shape."""
    flat = tensor.detach().cpu().contiguous()
    return f"{tuple(flat.shape)} {digest(flat.view(torch.uint8).numpy().tobytes())}"


def bits(value):
    return float(value).hex()


def exact():
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(1234)


def generate(*shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(dtype).to(DEVICE)


def matmul():
    exact()
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        a, b = generate(517, 1031, dtype=dtype, seed=1), generate(1031, 263, dtype=dtype, seed=2)
        attempt(f"matmul {dtype}", lambda: of(a @ b))
        attempt(f"batched {dtype}", lambda: of(torch.bmm(a.expand(3, -1, -1), b.expand(3, -1, -1))))
    torch.backends.cuda.matmul.allow_tf32 = True
    attempt("tf32", lambda: of(generate(512, 512, seed=3) @ generate(512, 512, seed=4)))
    torch.backends.cuda.matmul.allow_tf32 = False
    attempt("big bf16", lambda: of(generate(4096, 4096, dtype=torch.bfloat16, seed=5) @ generate(4096, 4096, dtype=torch.bfloat16, seed=6)))
    small = torch.arange(-64, 64, dtype=torch.int8).repeat(32, 1).to(DEVICE)
    attempt("int8", lambda: of(torch._int_mm(small, small.t().contiguous())))
    x = generate(8, 16, 33, 47, seed=7)
    attempt("convolution", lambda: of(F.conv2d(x, generate(32, 16, 3, 3, seed=8), padding=1)))
    attempt("half convolution", lambda: of(F.conv2d(x.half(), generate(32, 16, 3, 3, seed=8).half(), stride=2)))
    square = generate(96, 96, seed=9) + 96 * torch.eye(96, device=DEVICE)
    attempt("solve", lambda: of(torch.linalg.solve(square, generate(96, 5, seed=10))))
    attempt("cholesky", lambda: of(torch.linalg.cholesky(square @ square.t())))
    attempt("singular values", lambda: of(torch.linalg.svdvals(generate(64, 48, seed=11))))
    attempt("eigenvalues", lambda: of(torch.linalg.eigvalsh(square + square.t())))
    attempt("fft", lambda: of(torch.view_as_real(torch.fft.fft2(generate(60, 128, seed=12)))))
    attempt("sort", lambda: of(torch.sort(generate(1 << 18, seed=13)).indices))
    attempt("topk", lambda: of(torch.topk(generate(100000, seed=14), 50).values))
    attempt("cumsum of integers", lambda: of(torch.cumsum(torch.arange(100000, device=DEVICE), 0)))
    attempt("unique", lambda: of(torch.unique(torch.arange(100000, device=DEVICE) % 771)))
    torch.cuda.manual_seed(99)
    attempt("random", lambda: of(torch.rand(10000, device=DEVICE)))
    attempt("normal", lambda: of(torch.randn(10000, device=DEVICE)))
    attempt("permutation", lambda: of(torch.randperm(50000, device=DEVICE)))
    attempt("sparse", lambda: of(torch.sparse.mm(torch.eye(200, device=DEVICE).to_sparse_csr(), generate(200, 30, seed=15))))
    attempt("attention", lambda: of(F.scaled_dot_product_attention(*(generate(2, 8, 128, 64, dtype=torch.bfloat16, seed=s) for s in (16, 17, 18)), is_causal=True)))
    attempt("fp8", lambda: of(torch._scaled_mm(
        generate(64, 64, seed=19).to(torch.float8_e4m3fn), generate(64, 64, seed=20).to(torch.float8_e4m3fn).t(),
        scale_a=torch.ones((), device=DEVICE), scale_b=torch.ones((), device=DEVICE), out_dtype=torch.bfloat16)))
    attempt("jit", lambda: of(torch.jit.script(_fused)(generate(1000, seed=21), generate(1000, seed=22))))


def _fused(a: torch.Tensor, b: torch.Tensor):
    return torch.tanh(a * b + 1.0) * torch.sigmoid(a)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.short = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x))


def resnet(classes=1000):
    """The network of 50 layers."""
    layers, inputs = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)], 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _train(mixed, layout):
    exact()
    model = resnet().to(DEVICE, memory_format=layout)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    g = torch.Generator().manual_seed(5)
    images = torch.randn(16, 3, 160, 160, generator=g).to(DEVICE, memory_format=layout)
    labels = torch.randint(0, 1000, (16,), generator=g).to(DEVICE)
    for step in range(5):
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
        fact(f"step {step}", "loss", bits(loss))
    fact("weights", of(torch.cat([p.flatten() for p in model.parameters()])))


def resnet50():
    _train(False, torch.contiguous_format)
    _train(True, torch.channels_last)


def _gpt2():
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as why:
        skip(f"no transformers: {why}")
    torch.manual_seed(7)
    config = GPT2Config(bos_token_id=0, eos_token_id=None, pad_token_id=0)
    return GPT2LMHeadModel(config).to(DEVICE).eval()


def gpt2():
    exact()
    model = _gpt2()
    prompt = torch.arange(100, 132, device=DEVICE)[None]
    for dtype in (torch.float32, torch.bfloat16):
        model = model.to(dtype)
        with torch.no_grad():
            fact(f"logits {dtype}", of(model(prompt).logits))
            greedy = model.generate(prompt, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(prompt))
            fact(f"greedy {dtype}", greedy[0].tolist())
            torch.manual_seed(11)
            drawn = model.generate(prompt.repeat(4, 1), max_new_tokens=24, do_sample=True, top_k=50,
                                   attention_mask=torch.ones_like(prompt).repeat(4, 1))
            fact(f"drawn {dtype}", digest(str(drawn.tolist()).encode()))


def tokens():
    """Tokens a second, one sequence: how fast single kernels follow each other, and what waiting for each token costs."""
    model = _gpt2().to(torch.bfloat16)
    prompt = torch.arange(100, 132, device=DEVICE)[None]
    mask = torch.ones_like(prompt)
    with torch.no_grad():
        model.generate(prompt, max_new_tokens=16, do_sample=False, attention_mask=mask)
        rates = []
        for _ in range(3):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            made = model.generate(prompt, max_new_tokens=128, do_sample=False, attention_mask=mask)
            torch.cuda.synchronize()
            rates.append(128 / (time.perf_counter() - begin))
        fact("tokens", digest(str(made.tolist()).encode()))
        time_of("GPT-2 (124 M, bf16), PyTorch generate", sorted(rates)[1], "tokens/s")
        cache, ids = None, prompt
        for step in range(160):
            if step == 32:
                torch.cuda.synchronize()
                begin = time.perf_counter()
            out = model(ids, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()
        time_of("GPT-2 (124 M, bf16), loop without waiting", 128 / (time.perf_counter() - begin), "tokens/s")
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    time_of("8192³ bf16 matrix product", 20 * 2 * 8192**3 / (time.perf_counter() - begin) / 1e12, "TFLOP/s")
    model = resnet().to(DEVICE, memory_format=torch.channels_last).to(torch.bfloat16)
    images = torch.randn(64, 3, 224, 224, device=DEVICE, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(15):
        if step == 5:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        model(images).float().mean().backward()
        optimiser.step()
    torch.cuda.synchronize()
    time_of("ResNet-50 training, batch of 64, bf16", 10 * 64 / (time.perf_counter() - begin), "images/s")


STATISTICS = [
    "allocation.all.current", "allocation.all.peak", "allocated_bytes.all.current", "allocated_bytes.all.peak",
    "reserved_bytes.all.current", "reserved_bytes.all.peak", "segment.all.current", "num_alloc_retries", "num_ooms",
]


def statistics(name):
    stats = torch.cuda.memory_stats()
    for key in STATISTICS:
        fact(name, key, stats.get(key))


def _allocate():
    blocks = [torch.zeros(n * 100_003, device=DEVICE) for n in range(1, 40)]
    del blocks[::3]
    more = [torch.ones(1 << 20, dtype=torch.uint8, device=DEVICE) for _ in range(50)]
    statistics("held")
    total = sum(int(b.sum()) for b in more)
    del blocks, more
    torch.cuda.empty_cache()
    statistics("given back")
    return total


def memory():
    properties = torch.cuda.get_device_properties(0)
    for key in ("name", "major", "minor", "total_memory", "multi_processor_count", "is_integrated", "is_multi_gpu_board",
                "max_threads_per_multi_processor", "max_threads_per_block", "warp_size", "regs_per_multiprocessor",
                "shared_memory_per_block", "shared_memory_per_block_optin", "shared_memory_per_multiprocessor", "L2_cache_size",
                "uuid", "pci_bus_id", "pci_device_id", "pci_domain_id", "gcnArchName"):
        fact("property", key, getattr(properties, key, None))
    fact("devices", torch.cuda.device_count(), torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    fact("sum", _allocate())
    fact("peak", torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    torch.cuda.reset_peak_memory_stats()
    exact()
    model = resnet().to(DEVICE)
    model(torch.ones(4, 3, 96, 96, device=DEVICE)).sum().backward()
    fact("peak of a step", torch.cuda.max_memory_allocated())
    free, total = torch.cuda.mem_get_info()
    fact("total", total, "free is less:", free < total, "and not little:", free > total // 4)
    fact("snapshot", len(torch.cuda.memory_snapshot()) > 0)
    before = torch.cuda.mem_get_info()[0]
    held = torch.empty(2 << 30, dtype=torch.uint8, device=DEVICE)
    note("2 GiB take", before - torch.cuda.mem_get_info()[0])
    del held
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        own = torch.zeros(1 << 22, device=DEVICE)
    fact("own pool", float(own.sum()))
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        fact("more than its fraction", torch.empty(4 << 30, dtype=torch.uint8, device=DEVICE).shape)
    except torch.OutOfMemoryError:
        fact("more than its fraction", "is refused")  # the message has numbers of the moment


def expandable():
    exact()
    fact("configuration", os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))
    fact("sum", _allocate())
    grown = torch.empty(0, device=DEVICE)
    for n in range(1, 12):
        grown = torch.cat([grown, torch.full((n * 1_000_000,), float(n), device=DEVICE)])
    fact("grown", of(grown))
    statistics("grown")
    model = resnet().to(DEVICE)
    fact("loss", bits(model(torch.ones(4, 3, 96, 96, device=DEVICE)).square().mean()))
    fact("peak", torch.cuda.max_memory_allocated())


def async_allocator():
    exact()
    fact("backend", torch.cuda.get_allocator_backend())
    blocks = [torch.full((n * 70_001,), float(n), device=DEVICE) for n in range(1, 60)]
    fact("sums", sum(float(b[::1000].sum()) for b in blocks))
    fact("allocated", torch.cuda.memory_allocated())
    del blocks
    torch.cuda.synchronize()
    fact("after", torch.cuda.memory_allocated(), "peak", torch.cuda.max_memory_allocated())
    torch.cuda.empty_cache()
    other = torch.cuda.Stream()
    with torch.cuda.stream(other):
        x = torch.ones(1 << 20, device=DEVICE)
    torch.cuda.current_stream().wait_stream(other)
    x.record_stream(torch.cuda.current_stream())
    fact("across streams", float((x * 2).sum()))
    del x
    model = resnet().to(DEVICE)
    fact("loss", bits(model(torch.ones(4, 3, 96, 96, device=DEVICE)).square().mean()))
    graph, y = torch.cuda.CUDAGraph(), torch.ones(1000, device=DEVICE)
    attempt("graph", lambda: _capture(graph, y))


def _capture(graph, y):
    with torch.cuda.graph(graph):
        z = (y * 3 + torch.empty_like(y).fill_(1)).cumsum(0)
    y.fill_(2)
    graph.replay()
    torch.cuda.synchronize()
    return of(z)


def graphs():
    exact()
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 256)).to(DEVICE)
    x = generate(64, 256, seed=1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = model(x)
    for n in range(4):
        x.copy_(generate(64, 256, seed=n))
        graph.replay()
        fact(f"replay {n}", of(y), "as without:", bool(torch.equal(y, model(x))))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=True)
    graphed = torch.cuda.make_graphed_callables(model, (torch.randn(64, 256, device=DEVICE),))
    for n in range(3):
        optimiser.zero_grad(set_to_none=False)
        loss = graphed(generate(64, 256, seed=n)).square().mean()
        loss.backward()
        optimiser.step()
        fact(f"training {n}", bits(loss))
    forked, counter = torch.cuda.CUDAGraph(), torch.zeros(8, device=DEVICE)
    other = torch.cuda.Stream()
    with torch.cuda.graph(forked):
        main = torch.cuda.current_stream()
        other.wait_stream(main)
        with torch.cuda.stream(other):
            a = counter + 1
        b = counter * 2
        main.wait_stream(other)
        counter.copy_(a + b)
    for _ in range(5):
        forked.replay()
    fact("fork and join", counter.tolist())
    torch.cuda.manual_seed(3)
    drawn = torch.cuda.CUDAGraph()
    with torch.cuda.graph(drawn):
        r = torch.rand(100, device=DEVICE)
    for n in range(2):
        drawn.replay()
        fact(f"random {n}", of(r))

    def forbidden():
        bad = torch.cuda.CUDAGraph()
        with torch.cuda.graph(bad):
            counter.sum().item()

    attempt("waiting in a capture", forbidden)
    attempt("afterwards", lambda: float(counter.sum()))


def streams():
    exact()
    greatest, least = torch.cuda.Stream(priority=-5), torch.cuda.Stream(priority=0)
    fact("priorities", greatest.priority, least.priority)
    host = torch.arange(1 << 22, dtype=torch.float32).pin_memory()
    fact("pinned", host.is_pinned())
    results = []
    for n in range(8):
        stream = (greatest, least)[n % 2]
        with torch.cuda.stream(stream):
            up = host.to(DEVICE, non_blocking=True)
            results.append((up * n).to("cpu", non_blocking=True))
    torch.cuda.synchronize()
    fact("copies", [digest(r.numpy().tobytes()) for r in results])
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.cuda._sleep(400_000_000)
    fact("at work", torch.cuda.current_stream().query(), end.query())
    end.record()
    end.synchronize()
    fact("over", end.query(), "it took some time:", begin.elapsed_time(end) > 1)
    x, ready = torch.zeros(1000, device=DEVICE), torch.cuda.Event()
    with torch.cuda.stream(greatest):
        torch.cuda._sleep(5_000_000)
        x += 1
        ready.record()
    with torch.cuda.stream(least):
        least.wait_event(ready)
        x *= 5
    torch.cuda.synchronize()
    fact("in order", float(x.sum()))
    import threading

    sums = [None] * 4

    def work(n):
        with torch.cuda.stream(torch.cuda.Stream()):
            a = generate(500, 500, seed=n)
            for _ in range(20):
                a = (a @ a).clamp(-1, 1)
            sums[n] = of(a)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    fact("threads", *sums)
    pageable = torch.arange(10_000_019, dtype=torch.int32)
    fact("pageable", of(pageable.to(DEVICE)), bool(torch.equal(pageable.to(DEVICE).cpu(), pageable)))
    registered = torch.empty(1 << 20, dtype=torch.uint8)
    runtime = torch.cuda.cudart()
    attempt("register", lambda: int(runtime.cudaHostRegister(registered.data_ptr(), registered.numel(), 0)))
    fact("is it pinned", registered.is_pinned())
    attempt("unregister", lambda: int(runtime.cudaHostUnregister(registered.data_ptr())))


class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 512

    def __getitem__(self, n):
        return torch.full((3, 64, 64), float(n * n % 251)), n


def loader():
    torch.zeros(1, device=DEVICE)  # the workers fork from a process that has a context
    for workers in (0, 2):
        total, pinned = 0.0, True
        batches = torch.utils.data.DataLoader(Squares(), batch_size=64, num_workers=workers, pin_memory=True, shuffle=False)
        for images, numbers in batches:
            pinned = pinned and images.is_pinned()
            total += float((images.to(DEVICE, non_blocking=True).mean((1, 2, 3)) * numbers.to(DEVICE)).double().sum())
        fact(f"{workers} workers", total, "pinned:", pinned)


def compiled():
    exact()
    torch.set_float32_matmul_precision("highest")
    model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.LayerNorm(1024), nn.Linear(1024, 64), nn.Softmax(-1)).to(DEVICE)
    x = generate(128, 256, seed=1)
    for mode in ("default", "reduce-overhead"):
        torch.compiler.reset()
        fast = torch.compile(model, mode=mode)
        for step in range(3):
            torch.compiler.cudagraph_mark_step_begin()
            model.zero_grad(set_to_none=True)
            y = fast(x)
            loss = (y * torch.arange(64, device=DEVICE)).sum()
            loss.backward()
            fact(mode, step, bits(loss), of(model[0].weight.grad))

    @torch.compile
    def pointwise(a, b):
        return torch.where(a > b, torch.sin(a) * b, torch.cos(b)).sum(0)

    fact("pointwise", of(pointwise(generate(300, 400, seed=2), generate(300, 400, seed=3))))


def _child(queue, done):
    tensor = queue.get()
    tensor += 1
    torch.cuda.synchronize()
    done.put(float(tensor.sum()))


def share():
    import torch.multiprocessing as mp

    context = mp.get_context("spawn")
    queue, done = context.Queue(), context.Queue()
    tensor = torch.zeros(1000, device=DEVICE)
    torch.cuda.synchronize()
    child = context.Process(target=_child, args=(queue, done))
    child.start()

    def exchange():
        # The queue pickles in a thread of its own, which swallows what goes wrong: here it is said.
        from torch.multiprocessing.reductions import reduce_tensor

        reduce_tensor(tensor)
        queue.put(tensor)
        answer = done.get(timeout=40)
        torch.cuda.synchronize()
        return answer, float(tensor.sum())

    attempt("shared", exchange)
    child.join(5)
    if child.is_alive():
        child.terminate()
        child.join(5)
    fact("child", child.exitcode)


def nccl():
    import tempfile

    import torch.distributed as dist

    if not dist.is_nccl_available():
        skip("no NCCL in this PyTorch")
    with tempfile.TemporaryDirectory() as folder:
        torch.cuda.set_device(0)
        dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        x = generate(100_000, seed=1)
        dist.all_reduce(x)
        fact("all_reduce", of(x))
        parts = [torch.empty_like(x)]
        dist.all_gather(parts, x)
        fact("all_gather", of(parts[0]))
        dist.broadcast(x, 0)
        out = torch.empty_like(x)
        dist.reduce_scatter_tensor(out, x)
        fact("reduce_scatter", of(out))
        dist.all_to_all_single(out, x)
        fact("all_to_all", of(out))
        model = nn.parallel.DistributedDataParallel(nn.Linear(64, 64).to(DEVICE))
        exact()
        loss = model(generate(32, 64, seed=2)).square().mean()
        loss.backward()
        fact("gradient", model.module.weight.grad is not None)
        dist.barrier()
        dist.destroy_process_group()
    fact("over", True)


def faults():
    import subprocess

    def too_much():
        return torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)

    try:
        too_much()
    except torch.OutOfMemoryError as error:
        fact("too much", type(error).__name__, str(error).split(".")[0])
    fact("afterwards", float(torch.ones(10, device=DEVICE).sum()))
    program = (
        "import torch\n"
        "x = torch.zeros(10, device='cuda')\n"
        "try:\n"
        "    x[torch.tensor([11], device='cuda')]; torch.cuda.synchronize()\n"
        "except Exception as e: print(type(e).__name__, str(e).splitlines()[0])\n"
        "try:\n"
        "    torch.zeros(10, device='cuda') + 1; torch.cuda.synchronize()\n"
        "except Exception as e: print('again', type(e).__name__, str(e).splitlines()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    fact("assertion", done.returncode, done.stdout.strip().replace("\n", " / "))
    fact("it was said on standard error", "Assertion" in done.stderr)
    fact("and this process is well", float(torch.ones(10, device=DEVICE).sum()))


CASES = {
    "matmul": matmul, "resnet50": resnet50, "gpt2": gpt2, "tokens": tokens, "memory": memory, "graphs": graphs, "streams": streams,
    "loader": loader, "compile": compiled, "expandable": expandable, "async": async_allocator, "share": share, "nccl": nccl,
    "faults": faults,
}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        fact("CUDA", "is not available")
        note(torch.__version__)
        sys.exit(1)
    CASES[sys.argv[1]]()
    torch.cuda.synchronize()
