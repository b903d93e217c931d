"""CuPy: its libraries, kernels compiled at run time, memory pools, streams."""

from common import attempt, digest, fact, skip

try:
    import cupy
    import numpy
except ImportError as why:
    skip(f"no CuPy: {why}")


def of(array):
    host = cupy.asnumpy(array)
    return f"{host.shape} {host.dtype} {digest(numpy.ascontiguousarray(host).tobytes())}"


def main():
    random = numpy.random.default_rng(3)
    a, b = cupy.asarray(random.standard_normal((300, 500))), cupy.asarray(random.standard_normal((500, 200)))
    attempt("matmul", lambda: of(a @ b))
    attempt("matmul of floats", lambda: of(a.astype("f4") @ b.astype("f4")))
    attempt("sort", lambda: of(cupy.sort(cupy.asarray(random.integers(0, 1 << 30, 300_000)))))
    attempt("argsort", lambda: of(cupy.argsort(cupy.asarray(random.permutation(50_000)))))
    attempt("fft", lambda: of(cupy.fft.fft(a, axis=1)))
    attempt("fft of reals", lambda: of(cupy.fft.rfft2(a)))
    attempt("solve", lambda: of(cupy.linalg.solve(a[:, :300] + 50 * cupy.eye(300), b[:300])))
    attempt("svd", lambda: of(cupy.linalg.svd(a[:60, :40], compute_uv=False)))
    attempt("sum of integers", lambda: of(cupy.arange(1_000_000).sum()))
    attempt("cumsum", lambda: of(cupy.cumsum(cupy.arange(100_000))))
    attempt("random", lambda: of(cupy.random.RandomState(5).uniform(size=10_000)))
    attempt("element-wise", lambda: of(cupy.where(a > 0, cupy.sqrt(cupy.abs(a)), cupy.exp(-a))))
    raw = cupy.RawKernel(
        'extern "C" __global__ void twice(const double *x, double *y, int n)'
        "{ int i = blockDim.x * blockIdx.x + threadIdx.x; if (i < n) y[i] = 2 * x[i] + 1; }", "twice")

    def run_raw():
        x, y = cupy.arange(10_000, dtype="f8"), cupy.empty(10_000)
        raw((40,), (256,), (x, y, numpy.int32(10_000)))
        return of(y), raw.num_regs > 0, raw.max_threads_per_block

    attempt("raw kernel", run_raw)
    module = cupy.RawModule(
        code="template<typename T> __global__ void fill(T *x, T v, int n) { int i = blockDim.x * blockIdx.x + threadIdx.x; if (i < n) x[i] = v; }",
        name_expressions=["fill<float>", "fill<long long>"])

    def run_module():
        x = cupy.zeros(1000, dtype="i8")
        module.get_function("fill<long long>")((4,), (256,), (x, numpy.int64(77), numpy.int32(1000)))
        return of(x)

    attempt("raw module", run_module)
    attempt("element kernel", lambda: of(cupy.ElementwiseKernel("T x, T y", "T z", "z = x * y + 1", "mad")(a, a)))
    attempt("reduction kernel", lambda: int(cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "add")(cupy.arange(1000))))
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    blocks = [cupy.zeros(n * 1000) for n in range(1, 20)]
    fact("pool", pool.used_bytes(), pool.total_bytes())
    del blocks
    pool.free_all_blocks()
    fact("pool", pool.n_free_blocks())
    cupy.cuda.set_pinned_memory_allocator(cupy.cuda.PinnedMemoryPool().malloc)
    attempt("pinned", lambda: int(numpy.frombuffer(cupy.cuda.alloc_pinned_memory(8000), "i8", 1000).size))

    def asynchronous():
        own = cupy.cuda.MemoryAsyncPool()
        with cupy.cuda.using_allocator(own.malloc), cupy.cuda.Stream(non_blocking=True) as stream:
            x = cupy.arange(100_000) * 3
            stream.synchronize()
            return of(x)

    attempt("asynchronous pool", asynchronous)

    def managed():
        with cupy.cuda.using_allocator(cupy.cuda.malloc_managed):
            return of(cupy.arange(1000) + 1)

    attempt("managed memory", managed)

    def in_stream():
        with cupy.cuda.Stream() as stream:
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(stream)
            x = a @ b
            end.record(stream)
            end.synchronize()
            return of(x), cupy.cuda.get_elapsed_time(begin, end) >= 0

    attempt("stream and events", in_stream)

    def captured():
        x = cupy.ones(1000)
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            cupy.multiply(x, 2, out=x)
            stream.begin_capture()
            cupy.multiply(x, 2, out=x)
            graph = stream.end_capture()
            graph.launch(stream)
            stream.synchronize()
        return of(x)

    attempt("graph", captured)

    def texture():
        from cupy.cuda import texture as t

        array = t.CUDAarray(t.ChannelFormatDescriptor(32, 0, 0, 0, cupy.cuda.runtime.cudaChannelFormatKindFloat), 64, 32)
        source = numpy.arange(64 * 32, dtype="f4").reshape(32, 64)
        array.copy_from(source)
        back = numpy.empty_like(source)
        array.copy_to(back)
        return bool((source == back).all())

    attempt("array", texture)


main()
