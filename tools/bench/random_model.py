#!/usr/bin/env python3
"""A Hugging Face folder with a model of random bf16 weights, for benchmarks of whole processes.

    python3 tools/bench/random_model.py FOLDER [--shape llama-3-8b|tiny] [--context N] [--seed N]

Weights are normal with a standard deviation of 0.02, drawn on the GPU where PyTorch has one (16 GB take some seconds) and by
numpy elsewhere. The tokenizer is made up: token ids are all that a benchmark sends, and any text will do that comes back.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import struct

STANDARD_DEVIATION = 0.02
SHARDS_AT_A_TIME = 8
SHAPES = {
    "llama-3-8b": {"layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn_hidden": 14336,
                   "vocab": 128256, "context": 40960, "rope_theta": 500000.0},
    "tiny": {"layers": 4, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "ffn_hidden": 512, "vocab": 2048,
             "context": 40960, "rope_theta": 10000.0},
}


def shards(shape):
    """Name and tensors ({name: [rows, columns] or [width]}) of each file: one a layer, one for the rest."""
    hidden, q, kv = shape["hidden"], shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
    ffn = shape["ffn_hidden"]
    layer = {
        "input_layernorm": [hidden], "self_attn.q_proj": [q, hidden], "self_attn.k_proj": [kv, hidden],
        "self_attn.v_proj": [kv, hidden], "self_attn.o_proj": [hidden, q], "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [ffn, hidden], "mlp.up_proj": [ffn, hidden], "mlp.down_proj": [hidden, ffn],
    }
    rest = {"model.embed_tokens": [shape["vocab"], hidden], "model.norm": [hidden], "lm_head": [shape["vocab"], hidden]}
    all_tensors = [{f"model.layers.{i}.{name}": size for name, size in layer.items()} for i in range(shape["layers"])]
    all_tensors.append(rest)
    for i, tensors in enumerate(all_tensors):
        yield (f"model-{i + 1:05}-of-{len(all_tensors):05}.safetensors",
               {f"{name}.weight": size for name, size in tensors.items()})


def numpy_draw(seed):
    import numpy

    def draw(index, size):
        if len(size) == 1:
            return numpy.full(size, 0x3F80, numpy.uint16)  # norms are ones
        values = numpy.random.default_rng([seed, index]).normal(0, STANDARD_DEVIATION, size).astype(numpy.float32)
        return (values.view(numpy.uint32) >> 16).astype(numpy.uint16)
    return draw


def torch_draw(torch, seed):
    def draw(index, size):
        if len(size) == 1:
            return torch.ones(size, dtype=torch.bfloat16).view(torch.uint16).numpy()
        generator = torch.Generator("cuda").manual_seed(seed * 100003 + index)
        values = torch.empty(size, dtype=torch.bfloat16, device="cuda").normal_(0, STANDARD_DEVIATION, generator=generator)
        return values.cpu().view(torch.uint16).numpy()
    return draw


def make_draw(seed):
    try:
        import torch
    except ImportError:
        return numpy_draw(seed)
    return torch_draw(torch, seed) if torch.cuda.is_available() else numpy_draw(seed)


def write_shard(path, first_index, tensors, draw):
    header, offset = {}, 0
    for name, size in tensors.items():
        end = offset + 2 * size[0] * (size[1] if len(size) == 2 else 1)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i, size in enumerate(tensors.values()):
            file.write(memoryview(draw(first_index + i, size)).cast("B"))


def config_json(shape):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn_hidden"], "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"], "num_key_value_heads": shape["kv_heads"], "head_dim": shape["head_dim"],
        "max_position_embeddings": shape["context"], "rms_norm_eps": 1e-5, "rope_theta": shape["rope_theta"],
        "tie_word_embeddings": False, "vocab_size": shape["vocab"], "bos_token_id": 0, "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }


def byte_letters():
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def tokenizer_json(vocab):
    """Two special tokens, the bytes, and names for all other ids."""
    specials = ["<|begin|>", "<|end|>"]
    letters = byte_letters()
    tokens = specials + [letters[byte] for byte in range(256)]
    tokens += [f"token{i}" for i in range(len(tokens), vocab)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for i, text in enumerate(specials)],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {text: i for i, text in enumerate(tokens)}, "merges": []},
    }


def write_model(folder, shape, seed):
    folder.mkdir(parents=True, exist_ok=True)
    files = list(shards(shape))
    draw = make_draw(seed)
    with concurrent.futures.ThreadPoolExecutor(min(SHARDS_AT_A_TIME, os.cpu_count())) as pool:
        written = [pool.submit(write_shard, folder / name, 16 * i, tensors, draw) for i, (name, tensors) in enumerate(files)]
        for one in written:
            one.result()
    weight_map = {tensor: name for name, tensors in files for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config_json(shape)))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(shape["vocab"])))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|begin|>", "eos_token": "<|end|>",
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}"}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-8b")
    parser.add_argument("--context", type=int, help="tokens; empty: the shape's own")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    write_model(arguments.folder, shape | {"context": arguments.context or shape["context"]}, arguments.seed)


if __name__ == "__main__":
    main()
