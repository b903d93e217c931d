"""llama.cpp, prebuilt, on a model of random weights: `llama.tar.gz` of the bundle unpacked, a GGUF file written, tokens generated."""

import array
import math
import os
import random
import struct
import subprocess
import sys
import tarfile

from common import note, skip

ROOT, WORK, BUILD = (os.environ[name] for name in ("VGPU_ROOT", "VGPU_WORK", "VGPU_BUILD"))
# A small llama: wide enough that its matrices are multiplied as in a large one, some of them quantized.
LAYERS, WIDTH, HEADS, KV_HEADS, INNER, VOCABULARY, CONTEXT = 4, 512, 8, 4, 1408, 1024, 512

# GGUF's types of values, and of tensors.
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
TENSOR_F32, TENSOR_F16, TENSOR_Q4_0, TENSOR_Q8_0 = 0, 1, 2, 8
# Values to a block of a quantized tensor, each block with its scale as a half before it.
BLOCK = 32
ALIGNMENT = 32


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    head = text(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + text(value)
    if kind == ARRAY:
        inner, values = value
        if inner == STRING:
            body = b"".join(text(v) for v in values)
        else:
            body = b"".join(struct.pack("<f" if inner == F32 else "<i", v) for v in values)
        return head + struct.pack("<IQ", inner, len(values)) + body
    return head + struct.pack("<f" if kind == F32 else "<I", value)


# For the upper byte of a random half: its sign and two bits stay, the exponent becomes that of 2^-6. So values are between 2^-6 and
# 2^-5, of either sign, which is about what a trained matrix of this width has.
TAMED = bytes((byte & 0x83) | (9 << 2) for byte in range(256))
# Scales of blocks, as halves: 2^-8 for values from -8 to 7, 2^-12 for -128 to 127.
SCALES = {TENSOR_Q4_0: (7 << 10, BLOCK // 2), TENSOR_Q8_0: (3 << 10, BLOCK)}


def weights(generator, shape, kind):
    """Random bytes of a tensor; norms are ones. `shape` has the fastest dimension first."""
    count = math.prod(shape)
    if kind == TENSOR_F32:
        return array.array("f", [1.0]).tobytes() * count
    if kind == TENSOR_F16:
        halves = bytearray(generator.randbytes(2 * count))
        halves[1::2] = halves[1::2].translate(TAMED)
        return bytes(halves)
    scale, size = SCALES[kind]
    head, values = struct.pack("<H", scale), generator.randbytes(count // BLOCK * size)
    return b"".join(head + values[n:n + size] for n in range(0, len(values), size))


def write_model(path):
    generator = random.Random(17)
    tensors = [("token_embd.weight", (WIDTH, VOCABULARY), TENSOR_F16)]
    for n in range(LAYERS):
        head = WIDTH // HEADS
        for name, shape, kind in (
            ("attn_norm", (WIDTH,), TENSOR_F32), ("attn_q", (WIDTH, WIDTH), TENSOR_F16),
            ("attn_k", (WIDTH, head * KV_HEADS), TENSOR_F16), ("attn_v", (WIDTH, head * KV_HEADS), TENSOR_F16),
            ("attn_output", (WIDTH, WIDTH), TENSOR_F16), ("ffn_norm", (WIDTH,), TENSOR_F32),
            ("ffn_gate", (WIDTH, INNER), TENSOR_Q4_0), ("ffn_up", (WIDTH, INNER), TENSOR_Q4_0), ("ffn_down", (INNER, WIDTH), TENSOR_Q8_0),
        ):
            tensors.append((f"blk.{n}.{name}.weight", shape, kind))
    tensors += [("output_norm.weight", (WIDTH,), TENSOR_F32), ("output.weight", (WIDTH, VOCABULARY), TENSOR_F16)]
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{n:02X}>" for n in range(256)]
    words += [f"\u2581w{n}" for n in range(VOCABULARY - len(words))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259)
    values = [
        entry("general.architecture", STRING, "llama"), entry("general.name", STRING, "random"),
        entry("llama.context_length", U32, CONTEXT), entry("llama.embedding_length", U32, WIDTH),
        entry("llama.block_count", U32, LAYERS), entry("llama.feed_forward_length", U32, INNER),
        entry("llama.attention.head_count", U32, HEADS), entry("llama.attention.head_count_kv", U32, KV_HEADS),
        entry("llama.rope.dimension_count", U32, WIDTH // HEADS), entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        entry("llama.vocab_size", U32, VOCABULARY), entry("general.file_type", U32, 1),
        entry("tokenizer.ggml.model", STRING, "llama"), entry("tokenizer.ggml.tokens", ARRAY, (STRING, words)),
        entry("tokenizer.ggml.scores", ARRAY, (F32, [-float(n) for n in range(VOCABULARY)])),
        entry("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        entry("tokenizer.ggml.bos_token_id", U32, 1), entry("tokenizer.ggml.eos_token_id", U32, 2),
    ]
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values))
        offset, data = 0, []
        for name, shape, kind in tensors:
            body = weights(generator, shape, kind)
            file.write(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
            file.write(struct.pack("<IQ", kind, offset))
            body += bytes(-len(body) % ALIGNMENT)
            offset += len(body)
            data.append(body)
        file.write(bytes(-file.tell() % ALIGNMENT))
        file.writelines(data)


def main():
    packed, folder, model = os.path.join(ROOT, "llama.tar.gz"), os.path.join(WORK, "llama"), os.path.join(WORK, "random.gguf")
    if not os.path.exists(packed):
        skip("the bundle was made without llama.cpp")
    # The native run makes them, ours finds them.
    if not os.path.exists(folder):
        with tarfile.open(packed) as archive:
            archive.extractall(folder + ".new", filter="data")
        os.rename(folder + ".new", folder)
    if not os.path.exists(model):
        write_model(model + ".new")
        os.rename(model + ".new", model)
    libraries = [folder]
    for place in sys.path:
        for name in ("nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/cuda_runtime/lib"):
            if os.path.isdir(os.path.join(place, name)):
                libraries.append(os.path.join(place, name))
    libraries += [p for p in ("/usr/local/cuda/lib64",) if os.path.isdir(p)]
    env = dict(os.environ)
    # It would start a debugger on itself where it gives up.
    env["GGML_NO_BACKTRACE"] = "1"
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [env.get("LD_LIBRARY_PATH"), *libraries]))
    done = subprocess.run([os.path.join(BUILD, "llama_run"), folder, model, *sys.argv[1:]], env=env, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")
    note("exit", done.returncode)
    sys.exit(done.returncode if done.returncode >= 0 else 1)


if __name__ == "__main__":
    main()
