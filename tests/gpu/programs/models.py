"""Models of PyTorch, measured, one case a process: `models.py CASE`. Weights are random, from a seed, made on the device."""

import sys
import time

BEGIN = time.perf_counter()

from common import attempt, digest, fact, note, skip, time_of  # noqa: E402 - the clock begins first

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as why:
    skip(f"no PyTorch: {why}")

DEVICE = "cuda"


def over(count, work):
    """How often a second `work` is done, `count` times."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return count / (time.perf_counter() - begin)


# ---- a Llama ----

PROMPT, WARM, STEPS, ROUNDS, ROOM = 32, 16, 64, 3, 512


class Decoder:
    """Greedy generation, one sequence, step by step, with nothing but device memory between the steps: a step can be captured."""

    def __init__(self, model, config):
        from transformers import StaticCache

        self.model, self.cache = model, StaticCache(config=config, max_cache_len=ROOM)
        self.slots = torch.arange(ROOM, device=DEVICE)
        self.token, self.position = (torch.zeros(1, 1, dtype=torch.long, device=DEVICE) for _ in range(2))
        self.made = torch.zeros(ROOM, dtype=torch.long, device=DEVICE)

    def _next(self, tokens, positions):
        seen = (self.slots[None, :] <= positions[0][:, None])[None, None]
        out = self.model(
            tokens, attention_mask=seen, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.token.copy_(out.logits[:, -1].argmax(-1, keepdim=True))

    def begin(self, prompt):
        self._next(prompt, torch.arange(prompt.shape[1], device=DEVICE)[None])
        self.position.fill_(prompt.shape[1])

    def step(self):
        self.made.index_copy_(0, self.position[0], self.token[0])
        self._next(self.token, self.position)
        self.position.add_(1)

    def tokens(self):
        return self.made[PROMPT:].tolist()


def _measure(name, decoder, step):
    """Each token is looked at, as by who waits for the last one; and none is, so that the steps follow each other."""

    def look():
        step()
        decoder.token.item()

    looked, followed = zip(*[(over(STEPS, look), over(STEPS, step)) for _ in range(ROUNDS)])
    time_of(name, sorted(looked)[ROUNDS // 2], "tokens/s")
    time_of(name + ", without waiting", sorted(followed)[ROUNDS // 2], "tokens/s")


def llama():
    """The architecture and size of Llama 3.2 1B."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as why:
        skip(f"no transformers: {why}")
    torch.manual_seed(7)
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    fact("parameters", sum(p.numel() for p in model.parameters()), model.dtype)
    prompt = torch.arange(100, 100 + PROMPT, device=DEVICE)[None]
    name = "Llama (1.2 B, bf16)"
    with torch.no_grad():
        eager = Decoder(model, config)
        eager.begin(prompt)
        for _ in range(WARM):
            eager.step()
        _measure(name + ", eager", eager, eager.step)

        captured = Decoder(model, config)
        captured.begin(prompt)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                captured.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured.step()
        _measure(name + ", CUDA graph", captured, graph.replay)
    fact("eager", digest(str(eager.tokens()).encode()))
    fact("captured", digest(str(captured.tokens()).encode()), "the same:", eager.tokens() == captured.tokens())


# ---- the start ----


def start():
    """What it takes to have cuBLAS and cuDNN, from this program's first line."""
    a = torch.ones(512, 512, device=DEVICE, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    time_of("from start to the first tensor", time.perf_counter() - BEGIN, "s")
    total = float((a @ a)[0, 0])
    time_of("from start to the first matrix product", time.perf_counter() - BEGIN, "s")
    x = torch.ones(1, 8, 32, 32, device=DEVICE)
    middle = float(F.conv2d(x, torch.ones(8, 8, 3, 3, device=DEVICE), padding=1)[0, 0, 16, 16])
    time_of("from start to the first convolution", time.perf_counter() - BEGIN, "s")
    fact("results", total, middle)


# ---- for those who look on from outside ----


def meet(line):
    """Says `line`, and waits for whoever listens."""
    print(line, flush=True)
    sys.stdin.readline()


def rate():
    """Tokens a second of a GPT-2, for at_once.py: in a loop without waiting, for as many seconds as the next argument says."""
    from pytorch import _gpt2

    seconds = float(sys.argv[2])
    model = _gpt2().to(torch.bfloat16)
    prompt = torch.arange(100, 132, device=DEVICE)[None]

    def sequence():
        cache, ids = None, prompt
        for _ in range(64):
            out = model(ids, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()

    with torch.no_grad():
        sequence()
        meet("ready")
        begin, made = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            sequence()
            made += 64
    print(f"rate: {made / (time.perf_counter() - begin):.6g}", flush=True)


def train():
    """Training steps a second of a small convolutional network, for sharing.py; its first losses, bit by bit."""
    seconds, told = float(sys.argv[2]), 40
    torch.manual_seed(11)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    layers, width = [], 3
    with torch.device(DEVICE):
        for wider in (64, 128, 256, 256):
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
            width = wider
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 100))
        images, labels = torch.randn(512, 3, 64, 64), torch.randint(0, 100, (512,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    for _ in range(5):
        step()
    meet("ready")
    begin, made = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or len(losses) < told:
        step()
        made += 1
    print(f"rate: {made / (time.perf_counter() - begin):.6g}", flush=True)
    print("losses:", digest(str([loss.hex() for loss in losses[:told]]).encode()), flush=True)


class Block(nn.Module):
    """A layer of a GPT-2, in plain PyTorch: what an emulated CPU imports in its time."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.before, self.after = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.into(self.before(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.after(x))))


def counted():
    """An eager loop for counted.py: twelve layers again and again, waited for once a pass and not at all."""
    torch.manual_seed(7)
    with torch.device(DEVICE):
        model = nn.Sequential(*(Block(768, 12) for _ in range(12)), nn.LayerNorm(768)).to(torch.bfloat16)
        x = torch.randn(1, 32, 768, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, wait in (("PyTorch, eager passes", False), ("PyTorch, eager passes, each waited for", True)):
            for _ in range(3):
                y = model(x)
            torch.cuda.synchronize()
            note(f"{name}: ready after {time.perf_counter() - BEGIN:.1f} s")
            meet("mark: begin " + name)
            for _ in range(20):
                y = model(x)
                if wait:
                    torch.cuda.synchronize()
            meet("mark: end " + name)
            torch.cuda.synchronize()
    attempt("finite", lambda: bool(torch.isfinite(y).all()))


CASES = {"llama": llama, "start": start, "rate": rate, "train": train, "counted": counted}

if __name__ == "__main__":
    if not torch.cuda.is_available():
        fact("CUDA", "is not available")
        note(torch.__version__)
        sys.exit(1)
    CASES[sys.argv[1]]()
    torch.cuda.synchronize()
