"""Triton: kernels compiled here and loaded as machine code, autotuning, tensor descriptors (TMA), launch hooks."""

from common import attempt, digest, skip

try:
    import torch
    import triton
    import triton.language as tl
except ImportError as why:
    skip(f"no Triton: {why}")


def of(t):
    return f"{tuple(t.shape)} {digest(t.cpu().contiguous().view(torch.uint8).numpy().tobytes())}"


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, tl.load(x + i, inside) + tl.load(y + i, inside), inside)


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    v = tl.load(x + row * columns + i, i < columns, -float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(out + row * columns + i, e / tl.sum(e, 0), i < columns)


# Each configuration adds up in the same order, so that the one that is found fastest makes no difference.
@triton.autotune(
    configs=[triton.Config({"M": m, "N": n}, num_warps=w) for m, n, w in ((64, 64, 4), (128, 64, 4), (128, 128, 8))],
    key=["m", "n", "k"],
)
@triton.jit
def product(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows, columns, inner = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    acc = tl.zeros((M, N), tl.float32)
    for start in range(0, k, K):
        x = tl.load(a + rows[:, None] * k + (start + inner)[None, :])
        y = tl.load(b + (start + inner)[:, None] * n + columns[None, :])
        acc = tl.dot(x, y, acc)
    tl.store(c + rows[:, None] * n + columns[None, :], acc.to(tl.float16))


@triton.jit
def described(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    x = tl.make_tensor_descriptor(a, [m, k], [k, 1], [M, K])
    y = tl.make_tensor_descriptor(b, [k, n], [n, 1], [K, N])
    z = tl.make_tensor_descriptor(c, [m, n], [n, 1], [M, N])
    row, column = tl.program_id(0) * M, tl.program_id(1) * N
    acc = tl.zeros((M, N), tl.float32)
    for start in range(0, k, K):
        acc = tl.dot(x.load([row, start]), y.load([start, column]), acc)
    z.store([row, column], acc.to(tl.float16))


@triton.jit
def from_host(x, y, M: tl.constexpr, N: tl.constexpr):
    v = x.load([tl.program_id(0) * M, tl.program_id(1) * N])
    y.store([tl.program_id(0) * M, tl.program_id(1) * N], v * 2)


@triton.jit
def bare(out, n):
    i = tl.program_id(0)
    tl.atomic_add(out + i % n, i)


def main():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(100_003, generator=g).cuda(), torch.randn(100_003, generator=g).cuda()
    out = torch.empty_like(x)

    def addition():
        add[(triton.cdiv(x.numel(), 1024),)](x, y, out, x.numel(), BLOCK=1024)
        return of(out), bool(torch.equal(out, x + y))

    attempt("add", addition)
    rows = torch.randn(300, 700, generator=g).cuda()

    def soft():
        result = torch.empty_like(rows)
        softmax[(300,)](rows, result, 700, BLOCK=1024)
        return of(result)

    attempt("softmax", soft)
    a, b = torch.randn(512, 256, generator=g).half().cuda(), torch.randn(256, 384, generator=g).half().cuda()

    def tuned():
        c = torch.empty(512, 384, dtype=torch.float16, device="cuda")
        product[lambda meta: (triton.cdiv(512, meta["M"]), triton.cdiv(384, meta["N"]))](a, b, c, 512, 384, 256, K=32)
        return of(c), float((c - a @ b).abs().max()) < 0.1

    attempt("autotuned product", tuned)

    def tma():
        triton.set_allocator(lambda size, align, stream: torch.empty(size, device="cuda", dtype=torch.int8))
        c = torch.empty(512, 384, dtype=torch.float16, device="cuda")
        described[(4, 3)](a, b, c, 512, 384, 256, M=128, N=128, K=64)
        return of(c), float((c - a @ b).abs().max()) < 0.1

    attempt("tensor descriptors made in the kernel", tma)

    def host_made():
        from triton.tools.tensor_descriptor import TensorDescriptor

        result = torch.empty_like(a)
        from_host[(8, 4)](TensorDescriptor.from_tensor(a, [64, 64]), TensorDescriptor.from_tensor(result, [64, 64]), M=64, N=64)
        return of(result), bool(torch.equal(result, a * 2))

    attempt("tensor descriptors made on the host", host_made)

    def many():
        counts = torch.zeros(97, dtype=torch.int32, device="cuda")
        for _ in range(500):
            bare[(200,)](counts, 97)
        return of(counts)

    attempt("many launches", many)

    def about():
        kernel = add.warmup(torch.float32, torch.float32, torch.float32, 1000, BLOCK=256, grid=(1,))
        return kernel.metadata.shared, kernel.metadata.num_warps

    attempt("about a kernel", about)

    def timed():
        return triton.testing.do_bench(lambda: a @ b, warmup=5, rep=10) > 0

    attempt("benchmark", timed)
    attempt("properties", lambda: sorted(triton.runtime.driver.active.utils.get_device_properties(0).items()))


main()
