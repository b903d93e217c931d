"""Tensors of PyTorch: made, computed with, multiplied, added up, copied back. Each line is said as soon as it is known: where a CPU is
emulated, every step may take its minutes."""

import sys
import time

from common import attempt, digest, fact, note, skip

BEGIN = time.monotonic()


def since(what):
    note(f"{what} after {time.monotonic() - BEGIN:.1f} s")


try:
    import torch
except ImportError as why:
    skip(f"no PyTorch: {why}")

since("PyTorch is imported")
fact("version", torch.__version__)
fact("available", torch.cuda.is_available())
if not torch.cuda.is_available():
    sys.exit(1)
fact("devices", torch.cuda.device_count())
fact("capability", torch.cuda.get_device_capability())
fact("name", torch.cuda.get_device_name())


def of(tensor):
    """A tensor's shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    return f"{tuple(flat.shape)} {digest(bytes(flat.view(torch.uint8).reshape(-1).tolist()))}"


def step(name, work):
    attempt(name, work)
    since(name)


n = 64
step("the first tensor", lambda: of(torch.zeros(8, device="cuda")))
host = torch.arange(n * n, dtype=torch.float32).reshape(n, n) / 7 - 100
x = host.to("cuda")
step("copied there and back", lambda: torch.equal(x.cpu(), host))
step("filled", lambda: of(torch.full((5, 7), 1.5, device="cuda")))
step("counted", lambda: of(torch.arange(100, device="cuda")))
step("added", lambda: of(x + 1.25))
step("elementwise", lambda: of(torch.relu(x * 2.0 - x / 3.0)))
step("exponential", lambda: of(torch.exp(x * 0.001)))
step("compared", lambda: of(x > 0))
step("transposed", lambda: of(x.t().contiguous()))
step("sum", lambda: float(x.sum()).hex())
step("sum of rows", lambda: of(x.sum(dim=1)))
step("largest", lambda: float(x.max()).hex())
pinned = torch.arange(5000, dtype=torch.int32).pin_memory()
step("pinned", lambda: (pinned.is_pinned(), int(pinned.to("cuda", non_blocking=True).sum())))
step("memory in use", lambda: torch.cuda.memory_allocated())
step("matmul", lambda: of(x @ x.t()))
step("matmul of another type", lambda: of(x.double() @ x.double()))
leaf = x.clone().requires_grad_()
step("gradient", lambda: of(torch.autograd.grad((leaf * leaf).sum(), leaf)[0]))
torch.cuda.synchronize()
fact("over", True)
