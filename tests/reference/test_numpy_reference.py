"""The reference against itself: two formats of one model, prefill against step by step, known values."""

import json
import subprocess
import sys

import numpy as np
import pytest

import numpy_reference
import rounding_noise
import tiny_model

PROMPT = [5, 6, 7, 100, 101, 102, 103, 200, 50, 60, 70, 3]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("architecture", ("llama", "qwen2", "qwen3"))
@pytest.mark.parametrize("scaling", (None, LLAMA3, {"rope_type": "linear", "factor": 2.0}))
def test_both_formats_give_the_same_logits(architecture, scaling, tmp_path):
    spec = tiny_model.Spec(architecture=architecture, rope_scaling=scaling, tied=scaling is None)
    tiny_model.write_gguf(tmp_path / "a.gguf", spec)
    tiny_model.write_hugging_face(tmp_path / "hf", spec)
    results = []
    for path in ("a.gguf", "hf"):
        model = numpy_reference.NumpyModel(tmp_path / path, dtype=np.float64)
        results.append(model.generate(PROMPT, 8, ignore_eos=True, keep_logits=True))
    assert results[0]["tokens"] == results[1]["tokens"]
    np.testing.assert_allclose(results[0]["logits"], results[1]["logits"], atol=1e-5)


def test_prefill_in_blocks_equals_token_by_token(tmp_path):
    tiny_model.write_gguf(tmp_path / "a.gguf", tiny_model.Spec())
    rng = np.random.default_rng(1)
    prompt = rng.integers(0, 384, 150).tolist()
    model = numpy_reference.NumpyModel(tmp_path / "a.gguf", dtype=np.float64, prefill_rows=100)
    whole = model.forward(prompt, model.new_cache(200), all_logits=True)
    cache = model.new_cache(200)
    steps = np.stack([model.forward([token], cache) for token in prompt])
    np.testing.assert_allclose(whole, steps, atol=1e-9)


def test_positions_and_order_matter(tmp_path):
    tiny_model.write_gguf(tmp_path / "a.gguf", tiny_model.Spec())
    model = numpy_reference.NumpyModel(tmp_path / "a.gguf")

    def last(prompt):
        return model.forward(prompt, model.new_cache(20))

    assert np.abs(last([5, 6, 7, 8]) - last([6, 5, 7, 8])).max() > 1e-3


def test_bf16_rounding():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.3e38, 0.0], dtype=np.float32)
    expected = np.array([1.0, 1.0, 1.015625, -3.3e38, 0.0], dtype=np.float32)
    rounded = numpy_reference.round_to_bf16(values)
    np.testing.assert_allclose(rounded, expected, rtol=0.01)
    assert rounded[1] == 1.0 and rounded[2] == np.float32(1.015625)


def test_rounding_noise_is_that_of_bf16(tmp_path):
    """Some hundredths of a logit, the same for the same seed, and none where nothing is rounded."""
    tiny_model.write_gguf(tmp_path / "a.gguf", tiny_model.Spec())
    exact = numpy_reference.NumpyModel(tmp_path / "a.gguf")
    rounded = rounding_noise.RoundedModel(tmp_path / "a.gguf")
    prompt = np.random.default_rng(2).integers(0, 384, 100).tolist()
    cache = exact.new_cache(120)
    result = exact.generate(prompt, 8, ignore_eos=True, cache=cache)

    def noise(model, seed):
        return rounding_noise.gap_noise(exact, model, cache, prompt, result, seed)

    assert noise(rounded, 1).shape == (8,) and 0 < noise(rounded, 1).min() and noise(rounded, 1).max() < 0.1
    np.testing.assert_array_equal(noise(rounded, 1), noise(rounded, 1))
    assert noise(exact, 1).max() < noise(rounded, 1).max()


def test_command_line(tmp_path):
    tiny_model.write_gguf(tmp_path / "a.gguf", tiny_model.Spec())
    (tmp_path / "prompts.json").write_text(json.dumps([PROMPT, {"name": "second", "tokens": PROMPT[:3]}]))
    subprocess.run(
        [sys.executable, numpy_reference.__file__, tmp_path / "a.gguf", "--prompts-json", tmp_path / "prompts.json",
         "--max-tokens", "4", "--ignore-eos", "--kv-bf16", "--logits-npz", tmp_path / "l.npz", "--out", tmp_path / "o"],
        check=True, timeout=120,
    )
    results = json.loads((tmp_path / "o").read_text())
    assert [r["name"] for r in results] == ["0", "second"]
    assert all(len(r["tokens"]) == len(r["gaps"]) == 4 and min(r["gaps"]) >= 0 for r in results)
    logits = np.load(tmp_path / "l.npz")["second"]
    assert logits.argmax(axis=1).tolist() == results[1]["tokens"]
