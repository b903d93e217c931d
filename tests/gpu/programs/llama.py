"""llama.cpp, prebuilt, on a model of random weights: `llama.tar.gz` of the bundle unpacked, a GGUF file written, tokens generated."""

import array
import os
import random
import struct
import subprocess
import sys
import tarfile

from common import note, skip

ROOT, WORK, BUILD = (os.environ[name] for name in ("VGPU_ROOT", "VGPU_WORK", "VGPU_BUILD"))
# A small llama: wide enough that its matrices are multiplied as in a large one.
LAYERS, WIDTH, HEADS, KV_HEADS, INNER, VOCABULARY, CONTEXT = 4, 512, 8, 4, 1408, 1024, 512

# GGUF's types of values, and of tensors.
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
TENSOR_F32, TENSOR_F16 = 0, 1
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


def weights(generator, shape, kind):
    """Random bytes of a tensor; norms are ones. `shape` has the fastest dimension first."""
    count = 1
    for n in shape:
        count *= n
    if kind == TENSOR_F32:
        return array.array("f", [1.0] * count).tobytes()
    # Halves between 2^-6 and 2^-5, of either sign, which is about what a trained matrix of this width has.
    bits = generator.randbytes(2 * count)
    halves = array.array("H", bits)
    return array.array("H", [(h & 0x83FF) | (9 << 10) for h in halves]).tobytes()


def write_model(path):
    generator = random.Random(17)
    tensors = [("token_embd.weight", (WIDTH, VOCABULARY), TENSOR_F16)]
    for n in range(LAYERS):
        head = WIDTH // HEADS
        for name, shape, kind in (
            ("attn_norm", (WIDTH,), TENSOR_F32), ("attn_q", (WIDTH, WIDTH), TENSOR_F16),
            ("attn_k", (WIDTH, head * KV_HEADS), TENSOR_F16), ("attn_v", (WIDTH, head * KV_HEADS), TENSOR_F16),
            ("attn_output", (WIDTH, WIDTH), TENSOR_F16), ("ffn_norm", (WIDTH,), TENSOR_F32),
            ("ffn_gate", (WIDTH, INNER), TENSOR_F16), ("ffn_up", (WIDTH, INNER), TENSOR_F16), ("ffn_down", (INNER, WIDTH), TENSOR_F16),
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
    env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [env.get("LD_LIBRARY_PATH"), *libraries]))
    done = subprocess.run([os.path.join(BUILD, "llama_run"), folder, model], env=env, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")
    note("exit", done.returncode)
    sys.exit(done.returncode if done.returncode >= 0 else 1)


if __name__ == "__main__":
    main()
