"""Numba's CUDA target: kernels from Python through NVVM and the driver's linker."""

import math

from common import attempt, digest, fact, skip

try:
    import numpy

    # numpy 2.5 dropped the name, and numba-cuda 0.30 compiles most kernels only with it.
    if not hasattr(numpy, "row_stack"):
        numpy.row_stack = numpy.vstack
    from numba import cuda, float32
except ImportError as why:
    skip(f"no numba: {why}")


def of(array):
    host = numpy.ascontiguousarray(array)
    return f"{host.shape} {host.dtype} {digest(host.tobytes())}"


@cuda.jit
def add(x, y, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = x[i] * 2 + math.sqrt(abs(y[i]))


@cuda.jit
def tiled(a, b, c):
    sa, sb = cuda.shared.array((16, 16), float32), cuda.shared.array((16, 16), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    acc = float32(0)
    for t in range(a.shape[1] // 16):
        sa[ty, tx], sb[ty, tx] = a[y, t * 16 + tx], b[t * 16 + ty, x]
        cuda.syncthreads()
        for k in range(16):
            acc += sa[ty, k] * sb[k, tx]
        cuda.syncthreads()
    c[y, x] = acc


@cuda.jit
def count(histogram, data):
    i = cuda.grid(1)
    if i < data.size:
        cuda.atomic.add(histogram, data[i], 1)


def main():
    if not cuda.is_available():
        fact("CUDA", "is not available")
        raise SystemExit(1)
    random = numpy.random.default_rng(1)

    def first():
        x, y = random.standard_normal(100_000).astype("f4"), random.standard_normal(100_000).astype("f4")
        out = cuda.device_array(100_000, "f4")
        add[400, 256](cuda.to_device(x), cuda.to_device(y), out)
        return of(out.copy_to_host())

    attempt("add", first)

    def second():
        a, b = random.standard_normal((64, 128)).astype("f4"), random.standard_normal((128, 96)).astype("f4")
        c = cuda.device_array((64, 96), "f4")
        tiled[(6, 4), (16, 16)](cuda.to_device(a), cuda.to_device(b), c)
        return of(c.copy_to_host())

    attempt("tiled product", second)

    def third():
        data, histogram = cuda.to_device(random.integers(0, 50, 100_000)), cuda.to_device(numpy.zeros(50, "i8"))
        count[400, 256](histogram, data)
        return histogram.copy_to_host().tolist()

    attempt("histogram", third)
    attempt("reduce", lambda: float(cuda.reduce(lambda a, b: a + b)(numpy.arange(1000.0))))

    def streams():
        stream = cuda.stream()
        with cuda.pinned(host := numpy.arange(10_000, dtype="f4")):
            device = cuda.to_device(host, stream=stream)
            add[40, 256, stream](device, device, device)
            back = device.copy_to_host(stream=stream)
            stream.synchronize()
        return of(back)

    attempt("stream and pinned memory", streams)
    attempt("managed", lambda: cuda.managed_array(100, "f4").size)


main()
