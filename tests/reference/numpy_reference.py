"""An independent reference of Llama, Qwen2 and Qwen3 in numpy, to hold Longhaul's tokens against.

It shares no code with the C++: weights come through the PyPI package `gguf` (dequantised to float32)
or from a Hugging Face folder. Greedy generation with a KV cache; a prompt is prefilled in blocks of
rows, so that 7K tokens fit in memory. For every generated token it also gives the gap between the two
highest logits: where the gap is small, another order of additions may rightly choose the other token.

    numpy_reference.py MODEL --prompts-json prompts.json --max-tokens 32 --out out.json

prompts.json: a list of prompts, each a list of token ids or {"name": ..., "tokens": [...]}.
out.json: a list of {"name", "prompt_tokens", "tokens", "gaps", "runners_up", "finish", "prefill_s",
"decode_s"}.

SmolLM2-135M: loading takes 4 s, a prompt of 2K tokens 6 s on two cores and 9 s on one, a prompt of 7K
tokens 63 s on one, a generated token 30 ms (100 ms behind 7K tokens).
BLAS threads that wait for a busy core make it much slower: beside other work
set OPENBLAS_NUM_THREADS=1.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np

from model_source import load_source

ATTENTION_ROWS = 64


def round_to_bf16(x):
    """Rounds float32 to the nearest bfloat16, ties to even; the result is float32 again."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def inverse_frequencies(config):
    """[head_dim / 2] angular frequencies, RoFormer's with the model's scaling."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** -(np.arange(half, dtype=np.float64) / half)
    scaling = config.rope_scaling
    if scaling is None:
        pass
    elif scaling["kind"] == "linear":
        frequencies = frequencies / scaling["factor"]
    elif scaling["kind"] == "llama3":
        # Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, between them a ramp.
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_context_tokens"] * frequencies / (2 * math.pi)
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (keep + (1.0 - keep) / scaling["factor"])
    elif scaling["kind"] == "divisors":
        frequencies = frequencies / np.asarray(scaling["divisors"], dtype=np.float64)
    else:
        raise ValueError(f"unknown RoPE scaling {scaling}")
    return frequencies


class KvCache:
    """Keys (already rotated) and values of one sequence: [layers][kv_heads, tokens, head_dim]."""

    def __init__(self, config, tokens_max, dtype):
        shape = (config.layers, config.kv_heads, tokens_max, config.head_dim)
        self.keys = np.zeros(shape, dtype=dtype)
        self.values = np.zeros(shape, dtype=dtype)
        self.tokens = 0


class NumpyModel:
    def __init__(self, path, dtype=np.float32, kv_bf16=False, prefill_rows=512):
        self.config, weights = load_source(path)
        self.dtype = dtype
        self.kv_bf16 = kv_bf16
        self.prefill_rows = prefill_rows
        self.embedding = weights["embedding"].astype(dtype, copy=False)
        head = weights.get("head")
        self.head = self.embedding if head is None else head.astype(dtype, copy=False)
        self.final_norm = weights["final_norm"].astype(dtype)
        self.layers = [
            {name: w.astype(dtype, copy=False) for name, w in layer.items()} for layer in weights["layers"]
        ]
        self.frequencies = inverse_frequencies(self.config)

    def new_cache(self, tokens_max):
        return KvCache(self.config, tokens_max, self.dtype)

    def operand(self, x):
        """What a matrix product takes for `x`."""
        return x

    def product(self, x, weight):
        return self.operand(x) @ weight.T

    def norm(self, x, weight):
        scale = 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + self.config.rms_epsilon)
        return (x * scale.astype(self.dtype)) * weight

    def rotate(self, x, position):
        """x [tokens, heads, head_dim], rotated by the positions from `position` on."""
        positions = np.arange(position, position + x.shape[0], dtype=np.float64)
        angles = positions[:, None] * self.frequencies[None, :]
        cos = np.cos(angles).astype(self.dtype)[:, None, :]
        sin = np.sin(angles).astype(self.dtype)[:, None, :]
        out = np.empty_like(x)
        if self.config.rope_interleaved:
            first, second = x[..., 0::2], x[..., 1::2]
            out[..., 0::2] = first * cos - second * sin
            out[..., 1::2] = second * cos + first * sin
        else:
            half = self.config.head_dim // 2
            first, second = x[..., :half], x[..., half:]
            out[..., :half] = first * cos - second * sin
            out[..., half:] = second * cos + first * sin
        return out

    def project(self, x, layer, name, heads):
        y = self.product(x, layer[name])
        bias = layer.get(name + "_bias")
        if bias is not None:
            y = y + bias
        return y.reshape(x.shape[0], heads, self.config.head_dim)

    def attend(self, q, keys, values, position):
        """q [tokens, heads, head_dim] at `position`; keys and values [kv_heads, all, head_dim]."""
        config = self.config
        tokens = q.shape[0]
        group = config.heads // config.kv_heads
        out = np.empty((tokens, config.heads, config.head_dim), dtype=self.dtype)
        q = self.operand(q)
        scale = self.dtype(1.0 / math.sqrt(config.head_dim))
        # Few rows at a time, so that their scores stay in the processor's cache.
        for begin in range(0, tokens, ATTENTION_ROWS):
            end = min(begin + ATTENTION_ROWS, tokens)
            rows = end - begin
            total = position + end
            hidden = np.triu(np.ones((rows, rows), dtype=bool), k=1)
            for kv_head in range(config.kv_heads):
                heads = slice(kv_head * group, (kv_head + 1) * group)
                q_rows = q[begin:end, heads].transpose(1, 0, 2).reshape(group * rows, config.head_dim)
                scores = q_rows @ keys[kv_head, :total].T
                scores *= scale
                # Row i sees all positions before the rows and of the rows themselves the first i + 1.
                own = scores.reshape(group, rows, total)[:, :, total - rows :]
                own[np.broadcast_to(hidden, own.shape)] = -np.inf
                scores -= scores.max(axis=-1, keepdims=True)
                np.exp(scores, out=scores)
                mixed = self.operand(scores) @ values[kv_head, :total] / scores.sum(axis=-1, keepdims=True)
                mixed = mixed.reshape(group, rows, config.head_dim)
                out[begin:end, heads] = mixed.transpose(1, 0, 2)
        return out.reshape(tokens, config.heads * config.head_dim)

    def block(self, x, layer, index, cache):
        config = self.config
        position = cache.tokens
        y = self.norm(x, layer["attention_norm"])
        q = self.project(y, layer, "q", config.heads)
        k = self.project(y, layer, "k", config.kv_heads)
        v = self.project(y, layer, "v", config.kv_heads)
        if "q_norm" in layer:
            q = self.norm(q, layer["q_norm"])
            k = self.norm(k, layer["k_norm"])
        q = self.rotate(q, position)
        k = self.rotate(k, position)
        if self.kv_bf16:
            k, v = round_to_bf16(k), round_to_bf16(v)
        end = position + x.shape[0]
        cache.keys[index, :, position:end] = k.transpose(1, 0, 2)
        cache.values[index, :, position:end] = v.transpose(1, 0, 2)
        attended = self.attend(q, cache.keys[index], cache.values[index], position)
        x = x + self.product(attended, layer["attention_out"])
        y = self.norm(x, layer["ffn_norm"])
        gate = self.product(y, layer["gate"])
        up = self.product(y, layer["up"])
        # silu(gate) * up; the clip only keeps exp quiet where the result is zero anyway.
        activated = gate / (1.0 + np.exp(-np.clip(gate, -80, 80))) * up
        return x + self.product(activated, layer["down"])

    def forward(self, tokens, cache, all_logits=False):
        """Appends `tokens` to the cache. Logits of the last token [vocab], or of all of them."""
        logits = []
        last = None
        for start in range(0, len(tokens), self.prefill_rows):
            part = np.asarray(tokens[start : start + self.prefill_rows])
            x = self.embedding[part]
            for index, layer in enumerate(self.layers):
                x = self.block(x, layer, index, cache)
            cache.tokens += len(part)
            last = x[-1:]
            if all_logits:
                logits.append(self.norm(x, self.final_norm) @ self.head.T)
        if all_logits:
            return np.concatenate(logits)
        return (self.norm(last, self.final_norm) @ self.head.T)[0]

    def generate(self, prompt, max_tokens, ignore_eos=False, keep_logits=False, cache=None):
        cache = cache or self.new_cache(len(prompt) + max_tokens)
        start = time.perf_counter()
        logits = self.forward(prompt, cache)
        prefill_s = time.perf_counter() - start
        result = {"prompt_tokens": len(prompt), "tokens": [], "gaps": [], "runners_up": [], "finish": "length"}
        kept = []
        start = time.perf_counter()
        while True:
            if keep_logits:
                kept.append(logits)
            best = int(np.argmax(logits))
            others = logits.copy()
            others[best] = -np.inf
            runner_up = int(np.argmax(others))
            result["tokens"].append(best)
            result["gaps"].append(float(logits[best] - logits[runner_up]))
            result["runners_up"].append(runner_up)
            if not ignore_eos and best in self.config.eos_tokens:
                result["finish"] = "stop"
                break
            if len(result["tokens"]) >= max_tokens:
                break
            logits = self.forward([best], cache)
        result["prefill_s"] = round(prefill_s, 3)
        result["decode_s"] = round(time.perf_counter() - start, 3)
        if keep_logits:
            result["logits"] = np.stack(kept)
        return result


def read_prompts(options):
    if options.tokens_file:
        tokens = [int(word) for word in pathlib.Path(options.tokens_file).read_text().split()]
        return [{"name": options.tokens_file, "tokens": tokens}]
    prompts = json.loads(pathlib.Path(options.prompts_json).read_text())
    named = []
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, list):
            prompt = {"name": str(index), "tokens": prompt}
        named.append(prompt)
    return named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="a GGUF file or a Hugging Face folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens-file", help="one prompt: token ids separated by white space")
    source.add_argument("--prompts-json", help="a list of prompts, see above")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--ignore-eos", action="store_true", help="go on after an end token")
    parser.add_argument("--kv-bf16", action="store_true", help="round keys and values to bfloat16")
    parser.add_argument("--float64", action="store_true", help="compute in float64")
    parser.add_argument("--logits-npz", help="also write the logits of every step, one array a prompt")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()

    dtype = np.float64 if options.float64 else np.float32
    model = NumpyModel(options.model, dtype=dtype, kv_bf16=options.kv_bf16)
    results, logits = [], {}
    for prompt in read_prompts(options):
        keep = options.logits_npz is not None
        result = model.generate(prompt["tokens"], options.max_tokens, options.ignore_eos, keep)
        if keep:
            logits[prompt["name"]] = result.pop("logits")
        results.append({"name": prompt["name"], **result})
    pathlib.Path(options.out).write_text(json.dumps(results, indent=1) + "\n")
    if options.logits_npz:
        np.savez(options.logits_npz, **logits)


if __name__ == "__main__":
    main()
