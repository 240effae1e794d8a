"""Tiny seeded models on disk, for tests: as a Hugging Face folder or as a GGUF file of any type.

    tiny_model.py OUT --format gguf --architecture llama --dtype Q4_K --seed 1

The two formats of one Spec hold the same weights (up to the rounding of their types), so that they must
give the same tokens. Weights are noise of sensible size; the tokenizer (tiny_tokenizer.py) is real.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import struct

import gguf
import numpy as np

import tiny_tokenizer

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
SAFETENSORS_TYPES = ("F32", "F16", "BF16")
K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")


@dataclasses.dataclass
class Spec:
    architecture: str = "llama"
    seed: int = 1
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn_hidden: int = 96
    vocab: int = 384
    padding: int = 0  # rows of embedding and head that no token names, loud enough to win wherever they may
    context: int = 512
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # as in config.json: linear or llama3
    tied: bool = True
    tokenizer: str = "byte_level"  # or "sentencepiece"

    def widen_for_blocks(self):
        """Widths that every block type can hold."""
        self.hidden, self.head_dim, self.ffn_hidden = 256, 64, 256
        return self


def make_weights(spec):
    """Hugging Face name -> float32 array."""
    rng = np.random.default_rng(spec.seed)

    def matrix(rows, cols, gain=1.0):
        return rng.uniform(-1, 1, (rows, cols)).astype(np.float32) * np.float32(gain * math.sqrt(3 / cols))

    def vector(cols, center, spread):
        return (center + spread * rng.uniform(-1, 1, cols)).astype(np.float32)

    q_rows, kv_rows = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    def table():
        rows = matrix(spec.vocab, spec.hidden, 0.35 * math.sqrt(spec.hidden))
        loud = 9 * np.random.default_rng(spec.seed).uniform(-1, 1, (spec.padding, spec.hidden)).astype(np.float32)
        return np.concatenate([rows, loud])

    weights = {"model.embed_tokens.weight": table()}
    for i in range(spec.layers):
        p = f"model.layers.{i}."
        weights[p + "input_layernorm.weight"] = vector(spec.hidden, 1.0, 0.2)
        weights[p + "self_attn.q_proj.weight"] = matrix(q_rows, spec.hidden, 1.5)
        weights[p + "self_attn.k_proj.weight"] = matrix(kv_rows, spec.hidden, 1.5)
        weights[p + "self_attn.v_proj.weight"] = matrix(kv_rows, spec.hidden)
        if spec.architecture == "qwen2":
            weights[p + "self_attn.q_proj.bias"] = vector(q_rows, 0.0, 0.5)
            weights[p + "self_attn.k_proj.bias"] = vector(kv_rows, 0.0, 0.5)
            weights[p + "self_attn.v_proj.bias"] = vector(kv_rows, 0.0, 0.5)
        if spec.architecture == "qwen3":
            weights[p + "self_attn.q_norm.weight"] = vector(spec.head_dim, 1.2, 0.2)
            weights[p + "self_attn.k_norm.weight"] = vector(spec.head_dim, 1.2, 0.2)
        weights[p + "self_attn.o_proj.weight"] = matrix(spec.hidden, q_rows)
        weights[p + "post_attention_layernorm.weight"] = vector(spec.hidden, 1.0, 0.2)
        weights[p + "mlp.gate_proj.weight"] = matrix(spec.ffn_hidden, spec.hidden, 1.5)
        weights[p + "mlp.up_proj.weight"] = matrix(spec.ffn_hidden, spec.hidden, 1.5)
        weights[p + "mlp.down_proj.weight"] = matrix(spec.hidden, spec.ffn_hidden)
    weights["model.norm.weight"] = vector(spec.hidden, 1.0, 0.2)
    if not spec.tied:
        weights["lm_head.weight"] = table()
    return weights


# ---- Hugging Face folder


def write_safetensors(path, tensors, dtype, pad=True):
    """`pad` aligns the data as today's writers do; old ones did not."""
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in tensors.items():
        if dtype == "BF16":
            data = gguf.quantize(array, gguf.GGMLQuantizationType.BF16).tobytes()
        else:
            data = array.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
        end = offset + len(data)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end]}
        parts.append(data)
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 if pad else (1 - len(text)) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def config_json(spec):
    config = {
        "architectures": [ARCHITECTURES[spec.architecture]],
        "model_type": spec.architecture,
        "hidden_act": "silu",
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn_hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": spec.rope_theta,
        "rope_scaling": spec.rope_scaling,
        "tie_word_embeddings": spec.tied,
        "vocab_size": spec.vocab + spec.padding,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return config


def write_hugging_face(folder, spec, dtype="F32", shards=1, pad=True):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights(spec)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, dtype, pad)
    else:
        names = list(weights)
        weight_map = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            part = {name: weights[name] for name in names[shard::shards]}
            write_safetensors(folder / file, part, dtype, pad)
            weight_map.update({name: file for name in part})
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config_json(spec), indent=1))
    eos = 2 if spec.tokenizer == "sentencepiece" else [2, 0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    tokenizer = tiny_tokenizer.make(spec.tokenizer, spec.architecture, spec.vocab)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.tokenizer_json(), indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer.tokenizer_config(), indent=1))


# ---- GGUF

GGUF_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name):
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_LAYER_NAMES[stem]}.{kind}"


def interleave_rows(array, heads):
    """Rows (i, i + half) of every head become neighbours, as GGUF's llama files have them."""
    shape = array.shape
    return array.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def random_k_quants(array, dtype, seed):
    """Blocks of noise with about the size of `array`: the package only reads these types."""
    rng = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType[dtype]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (array.size // elements, size), dtype=np.uint8)
    amplitude = float(np.abs(array).max())

    def put(at, value):
        blocks[:, at : at + 2] = np.frombuffer(np.float16(value).tobytes(), dtype=np.uint8)

    if dtype == "Q6_K":
        put(208, amplitude / (32 * 128))
    else:
        put(0, amplitude / ((7.5 if dtype == "Q4_K" else 15.5) * 63))
        put(2, amplitude / 63)
    return blocks.reshape(array.shape[0], -1)


def llama3_divisors(spec):
    scaling = spec.rope_scaling
    half = spec.head_dim // 2
    frequencies = spec.rope_theta ** -(np.arange(half) / half)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return (1.0 / (keep + (1 - keep) / scaling["factor"])).astype(np.float32)


def write_gguf(path, spec, dtype="F32"):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), spec.architecture)
    writer.add_name("tiny")
    writer.add_block_count(spec.layers)
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.hidden)
    writer.add_feed_forward_length(spec.ffn_hidden)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_vocab_size(spec.vocab)
    kind = spec.rope_scaling and spec.rope_scaling["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(spec.rope_scaling["factor"])
    elif kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(spec))
    tiny_tokenizer.make(spec.tokenizer, spec.architecture, spec.vocab).add_to_gguf(writer)
    for index, (name, array) in enumerate(make_weights(spec).items()):
        if spec.architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            array = interleave_rows(array, spec.heads if ".q_proj" in name else spec.kv_heads)
        if array.ndim == 1 or dtype == "F32":
            writer.add_tensor(gguf_name(name), array)
            continue
        kind = gguf.GGMLQuantizationType[dtype]
        if dtype in K_QUANTS:
            array = random_k_quants(array, dtype, spec.seed * 1000 + index)
        else:
            array = gguf.quantize(array, kind)
        writer.add_tensor(gguf_name(name), array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--format", choices=("gguf", "hf"), default="gguf")
    parser.add_argument("--dtype", default="F32", help="F32, F16, BF16; GGUF also the block types")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--wide", action="store_true", help="widths of 256, which K-quants need")
    parser.add_argument("--untied", action="store_true")
    parser.add_argument("--rope-scaling", help="a JSON object as in config.json")
    for field in dataclasses.fields(Spec):
        if field.name not in ("tied", "rope_scaling"):
            parser.add_argument("--" + field.name.replace("_", "-"), type=field.type, default=field.default)
    options = vars(parser.parse_args())
    names = {field.name for field in dataclasses.fields(Spec)}
    spec = Spec(**{name: value for name, value in options.items() if name in names - {"rope_scaling"}})
    spec.tied = not options["untied"]
    spec.rope_scaling = json.loads(options["rope_scaling"]) if options["rope_scaling"] else None
    if options["wide"]:
        spec.widen_for_blocks()
    if options["format"] == "hf":
        write_hugging_face(options["out"], spec, options["dtype"], options["shards"])
    else:
        write_gguf(options["out"], spec, options["dtype"])


if __name__ == "__main__":
    main()
