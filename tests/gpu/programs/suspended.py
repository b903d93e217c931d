"""Programs in the middle of whose work the VM is suspended and resumed, one case a process: `suspended.py CASE`. At each `mark: suspend` the
runner does so (../runner/suspend.py), while the program goes on, as far as it gets; natively nothing happens. What comes of it has to be
the same."""

import sys

from common import fact, note, skip

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as why:
    skip(f"no PyTorch: {why}")

from pytorch import DEVICE, _gpt2, bits, exact, of, resnet


def here():
    print("mark: suspend", flush=True)


def gpt2():
    """Greedy tokens of a GPT-2 with random weights, step by step, without waiting for the device in between."""
    exact()
    model = _gpt2().to(torch.bfloat16)
    ids = prompt = torch.arange(100, 132, device=DEVICE)[None]
    made, cache = [], None
    with torch.no_grad():
        for step in range(240):
            if step in (60, 150):
                here()
            out = model(ids, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            made.append(ids)
        tokens = torch.cat(made, 1)
        fact("tokens", tokens[0].tolist())
        fact("last logits", of(out.logits))
        again = model(torch.cat((prompt, tokens[:, :100]), 1)).logits
        fact("logits after that", of(again))
    note(f"{torch.cuda.memory_allocated() >> 20} MiB allocated, {torch.cuda.memory_reserved() >> 20} MiB reserved")


def training():
    """Training of a ResNet-50, whose images come from pinned memory, and a graph that was captured before the first suspend."""
    exact()
    model = resnet().to(DEVICE)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    g = torch.Generator().manual_seed(5)
    images = torch.randn(4, 32, 3, 160, 160, generator=g).pin_memory()
    labels = torch.randint(0, 1000, (4, 32), generator=g).pin_memory()
    # What nothing but its own memory tells later: 2 GiB that are only read again at the end.
    ballast = torch.arange(1 << 28, device=DEVICE, dtype=torch.int64)
    side, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).to(DEVICE), torch.ones(8, 64, device=DEVICE)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            F.normalize(side(x))
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x.copy_(F.normalize(side(x)))
    losses = []
    for step in range(32):
        if step in (8, 20):
            here()
        optimiser.zero_grad(set_to_none=True)
        image, label = (part[step % 4].to(DEVICE, non_blocking=True) for part in (images, labels))
        loss = F.cross_entropy(model(image), label)
        loss.backward()
        optimiser.step()
        graph.replay()
        losses.append(loss.detach())
        if step % 8 == 7:
            fact(f"step {step}", "loss", bits(loss))
    fact("losses", [bits(loss) for loss in losses])
    fact("weights", of(torch.cat([p.flatten() for p in model.parameters()])))
    fact("graph", of(x))
    fact("ballast", int(ballast.sum()), int(ballast[12345678]))
    fact("pinned", of(images), of(labels))
    note(f"{torch.cuda.memory_allocated() >> 20} MiB allocated, {torch.cuda.memory_reserved() >> 20} MiB reserved")


CASES = {"gpt2": gpt2, "training": training}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        fact("CUDA", "is not available")
        note(torch.__version__)
        sys.exit(1)
    CASES[sys.argv[1]]()
    torch.cuda.synchronize()
