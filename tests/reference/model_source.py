"""Reads a model for the numpy reference: a GGUF file or a Hugging Face folder, as float32 arrays.

load_source(path) -> (Config, weights); weights = {"embedding", "final_norm", "head" (absent if tied),
"layers": [{"attention_norm", "q", "k", "v", "q_bias", ..., "q_norm", "k_norm", "attention_out",
"ffn_norm", "gate", "up", "down"}]}, matrices as [rows, cols] with y = W x.
"""

import dataclasses
import json
import pathlib

import numpy as np


@dataclasses.dataclass
class Config:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_epsilon: float
    rope_theta: float
    rope_interleaved: bool
    rope_scaling: dict | None
    eos_tokens: list


def load_source(path):
    path = pathlib.Path(path)
    return load_hugging_face(path) if path.is_dir() else load_gguf(path)


# Our name -> (GGUF name, Hugging Face name) of a layer's tensors.
LAYER_NAMES = {
    "attention_norm": ("attn_norm.weight", "input_layernorm.weight"),
    "q": ("attn_q.weight", "self_attn.q_proj.weight"),
    "k": ("attn_k.weight", "self_attn.k_proj.weight"),
    "v": ("attn_v.weight", "self_attn.v_proj.weight"),
    "q_bias": ("attn_q.bias", "self_attn.q_proj.bias"),
    "k_bias": ("attn_k.bias", "self_attn.k_proj.bias"),
    "v_bias": ("attn_v.bias", "self_attn.v_proj.bias"),
    "q_norm": ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    "k_norm": ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    "attention_out": ("attn_output.weight", "self_attn.o_proj.weight"),
    "ffn_norm": ("ffn_norm.weight", "post_attention_layernorm.weight"),
    "gate": ("ffn_gate.weight", "mlp.gate_proj.weight"),
    "up": ("ffn_up.weight", "mlp.up_proj.weight"),
    "down": ("ffn_down.weight", "mlp.down_proj.weight"),
}
OPTIONAL = {"q_bias", "k_bias", "v_bias", "q_norm", "k_norm"}


def collect_layers(tensor, has, layers, prefix, column):
    result = []
    for index in range(layers):
        layer = {}
        for ours, names in LAYER_NAMES.items():
            name = prefix.format(index) + names[column]
            if ours not in OPTIONAL or has(name):
                layer[ours] = tensor(name)
        result.append(layer)
    return result


# ---- GGUF

END_TOKENS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>"}
CONTROL = 3


def gguf_end_tokens(value):
    ends = set()
    for kind in ("eos", "eot", "eom"):
        token = value(f"tokenizer.ggml.{kind}_token_id")
        if token is not None:
            ends.add(int(token))
    tokens = value("tokenizer.ggml.tokens") or []
    kinds = value("tokenizer.ggml.token_type") or [1] * len(tokens)
    ends.update(i for i, text in enumerate(tokens) if text in END_TOKENS and kinds[i] == CONTROL)
    return sorted(ends)


def load_gguf(path):
    import gguf

    reader = gguf.GGUFReader(str(path))

    def value(key, default=None):
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    tensors = {t.name: t for t in reader.tensors}

    def tensor(name):
        t = tensors[name]
        return np.asarray(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32)

    arch = value("general.architecture")
    heads = value(f"{arch}.attention.head_count")
    hidden = value(f"{arch}.embedding_length")
    scaling = None
    if "rope_freqs.weight" in tensors:
        scaling = {"kind": "divisors", "divisors": tensor("rope_freqs.weight").tolist()}
    elif value(f"{arch}.rope.scaling.type") == "linear":
        scaling = {"kind": "linear", "factor": value(f"{arch}.rope.scaling.factor")}
    config = Config(
        layers=value(f"{arch}.block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=value(f"{arch}.attention.head_count_kv", heads),
        head_dim=value(f"{arch}.attention.key_length", hidden // heads),
        rms_epsilon=value(f"{arch}.attention.layer_norm_rms_epsilon"),
        rope_theta=value(f"{arch}.rope.freq_base", 10000.0),
        rope_interleaved=arch == "llama",
        rope_scaling=scaling,
        eos_tokens=gguf_end_tokens(value),
    )
    weights = {
        "embedding": tensor("token_embd.weight"),
        "final_norm": tensor("output_norm.weight"),
        "layers": collect_layers(tensor, tensors.__contains__, config.layers, "blk.{}.", 0),
    }
    if "output.weight" in tensors:
        weights["head"] = tensor("output.weight")
    return config, weights


# ---- Hugging Face


def safetensors_arrays(path):
    """name -> float32 array of one .safetensors file."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    header_bytes = int(data[:8].view(np.uint64)[0])
    header = json.loads(bytes(data[8 : 8 + header_bytes]))
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = np.array(data[8 + header_bytes + begin : 8 + header_bytes + end])
        if entry["dtype"] == "BF16":
            array = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = raw.view({"F32": np.float32, "F16": np.float16}[entry["dtype"]])
        arrays[name] = array.astype(np.float32).reshape(entry["shape"])
    return arrays


def hugging_face_scaling(config):
    scaling = config.get("rope_scaling")
    if not scaling:
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "default":
        return None
    result = {"kind": kind, "factor": scaling["factor"]}
    if kind == "llama3":
        result["low_freq_factor"] = scaling["low_freq_factor"]
        result["high_freq_factor"] = scaling["high_freq_factor"]
        result["original_context_tokens"] = scaling["original_max_position_embeddings"]
    return result


def load_hugging_face(folder):
    config = json.loads((folder / "config.json").read_text())
    arrays = {}
    for path in sorted(folder.glob("*.safetensors")):
        arrays.update(safetensors_arrays(path))
    eos = config.get("eos_token_id")
    generation = folder / "generation_config.json"
    if generation.exists():
        eos = json.loads(generation.read_text()).get("eos_token_id", eos)
    heads = config["num_attention_heads"]
    result = Config(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        rms_epsilon=config["rms_norm_eps"],
        rope_theta=config.get("rope_theta", 10000.0),
        rope_interleaved=False,
        rope_scaling=hugging_face_scaling(config),
        eos_tokens=[] if eos is None else sorted(set(eos)) if isinstance(eos, list) else [eos],
    )
    tensor = arrays.__getitem__
    weights = {
        "embedding": tensor("model.embed_tokens.weight"),
        "final_norm": tensor("model.norm.weight"),
        "layers": collect_layers(tensor, arrays.__contains__, result.layers, "model.layers.{}.", 1),
    }
    if not config.get("tie_word_embeddings", False):
        weights["head"] = tensor("lm_head.weight")
    return result, weights
