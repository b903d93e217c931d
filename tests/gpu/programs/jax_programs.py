"""JAX: XLA's compilation, its streams and its allocator."""

import os
import subprocess
import sys

from common import attempt, digest, fact, skip


def flags():
    """XLA ends a process for a flag that it does not know: they are tried first, once. Both are for results that do not depend on which
    algorithm was found fastest."""
    path = os.path.join(os.environ["VGPU_WORK"], "xla_flags")
    if not os.path.exists(path):
        good = []
        for flag in ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0"):
            env = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
            done = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=env, capture_output=True, check=False)
            if done.returncode == 0:
                good.append(flag)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(" ".join(good))
        os.rename(path + ".new", path)
    with open(path, encoding="utf-8") as file:
        return file.read()


os.environ["XLA_FLAGS"] = flags()

try:
    import jax
    import jax.numpy as jnp
    import numpy
except ImportError as why:
    skip(f"no JAX: {why}")


def of(value):
    host = numpy.asarray(value)
    return f"{host.shape} {host.dtype} {digest(numpy.ascontiguousarray(host).tobytes())}"


def main():
    if jax.default_backend() != "gpu":
        fact("backend", jax.default_backend())
        raise SystemExit(1)
    fact("devices", [(d.device_kind, d.platform) for d in jax.devices()])
    key = jax.random.PRNGKey(0)
    a, b = jax.random.normal(key, (256, 512)), jax.random.normal(jax.random.PRNGKey(1), (512, 128))
    attempt("random", lambda: of(a))
    attempt("matmul", lambda: of(jnp.dot(a, b, precision="highest")))
    attempt("jit", lambda: of(jax.jit(lambda x, y: jnp.tanh(x @ y).sum(0))(a, b)))
    attempt("vmap", lambda: of(jax.vmap(lambda x: jnp.sort(x) * 2)(a)))
    attempt("scan", lambda: of(jax.lax.scan(lambda c, x: (c * 0.9 + x, c.sum()), jnp.zeros(512), a)[1]))
    attempt("while", lambda: of(jax.lax.while_loop(lambda c: c[0] < 50, lambda c: (c[0] + 1, c[1] * 1.01), (0, a))[1]))
    attempt("gradient", lambda: of(jax.jit(jax.grad(lambda w: (jnp.tanh(a @ w) ** 2).mean()))(b)))
    attempt("fft", lambda: of(jnp.fft.fft(a)))
    attempt("cholesky", lambda: of(jnp.linalg.cholesky(a[:, :256] @ a[:, :256].T + 300 * jnp.eye(256))))
    attempt("solve", lambda: of(jnp.linalg.solve(a[:, :256] + 30 * jnp.eye(256), b[:256])))
    attempt("convolution", lambda: of(jax.lax.conv(jnp.ones((2, 3, 32, 32)), jax.random.normal(key, (8, 3, 3, 3)), (1, 1), "SAME")))
    attempt("sort", lambda: of(jnp.sort(jax.random.uniform(key, (100_000,)))))
    attempt("bfloat16", lambda: of((a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).astype(jnp.float32)))

    def trained():
        step = jax.jit(lambda w, x: w - 0.1 * jax.grad(lambda v: ((x @ v) ** 2).mean())(w))
        w = b
        for _ in range(20):
            w = step(w, a)
        return of(w)

    attempt("trained", trained)
    attempt("callback", lambda: of(jax.jit(lambda x: jax.pure_callback(lambda v: numpy.asarray(v) * 2, jax.ShapeDtypeStruct(x.shape, x.dtype), x))(a)))
    attempt("sharded", lambda: of(jax.device_put(a, jax.sharding.SingleDeviceSharding(jax.devices()[0])) + 1))
    attempt("donated", lambda: of(jax.jit(lambda x: x + 1, donate_argnums=0)(a + 0)))


main()
