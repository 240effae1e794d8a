"""The model on the CPU against the numpy reference: the same greedy tokens, but where two logits all but tie."""

import os
import pathlib
import random
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reference"))

import numpy_reference
import tiny_model
from tools.launcher import build

# A gap between the two best logits below which another rounding may rightly choose the other: bf16 products in
# prefill move logits by some hundredths, float32 only rounds the KV differently.
TIES = {"avx2": 0.05, "avx512": 0.05, "avx512_bf16": 0.3}


def generate(model, prompts, isa, chunk=512, max_tokens=12):
    """The generated tokens of each prompt, or None where the machine lacks the instructions."""
    binary = pathlib.Path(os.environ.get("LONGHAUL_MODEL_GENERATE", build.binary("model_generate")))
    assert binary.exists(), f"{binary} is not built; ./longhaul test builds it"
    result = subprocess.run(
        [binary, f"--model={model}", f"--isa={isa}", f"--chunk={chunk}", f"--max_tokens={max_tokens}"],
        input="".join(" ".join(map(str, prompt)) + "\n" for prompt in prompts),
        capture_output=True, text=True, timeout=300, check=False)
    if "FAILED_PRECONDITION" in result.stderr:
        return None
    assert result.returncode == 0, result.stderr
    return [list(map(int, line.split())) for line in result.stdout.splitlines()]


def hold(model, prompts, isa, max_tokens=12):
    got = generate(model, prompts, isa, max_tokens=max_tokens)
    if got is None:
        pytest.skip(f"this processor lacks {isa}")
    reference = numpy_reference.NumpyModel(model, kv_bf16=True)
    agreed = 0
    for prompt, tokens in zip(prompts, got, strict=True):
        want = reference.generate(prompt, max_tokens, ignore_eos=True)
        for ours, theirs, gap in zip(tokens, want["tokens"], want["gaps"], strict=True):
            if ours != theirs:
                assert gap < TIES[isa], f"token {ours} for {theirs}, which leads by {gap}"
                break
            agreed += 1
    assert agreed >= 0.7 * max_tokens * len(prompts), f"only {agreed} tokens before the first ties"


@pytest.mark.parametrize("isa", TIES)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_tiny_models(tmp_path, dtype, isa):
    spec = tiny_model.Spec()
    if dtype.startswith("Q"):
        spec.widen_for_blocks()
    tiny_model.write_gguf(tmp_path / "m.gguf", spec, dtype)
    rng = random.Random(3)
    hold(tmp_path / "m.gguf", [[rng.randrange(384) for _ in range(n)] for n in (2, 40, 100)], isa)


@pytest.mark.parametrize("isa", TIES)
def test_the_default_model(isa):
    found = sorted((pathlib.Path(__file__).resolve().parents[2] / ".longhaul" / "models").glob("*.gguf"))
    if not found:
        pytest.skip("the default model has not been fetched; ./longhaul setup fetches it")
    rng = random.Random(5)
    hold(found[0], [[rng.randrange(100, 40000) for _ in range(n)] for n in (3, 150)], isa)


def test_chunks_change_no_token(tmp_path):
    tiny_model.write_gguf(tmp_path / "m.gguf", tiny_model.Spec())
    rng = random.Random(4)
    prompts = [[rng.randrange(384) for _ in range(150)]]
    whole = generate(tmp_path / "m.gguf", prompts, "avx2", max_tokens=40)
    assert whole == generate(tmp_path / "m.gguf", prompts, "avx2", chunk=37, max_tokens=40)


@pytest.mark.parametrize("tied", (True, False))
def test_what_no_token_names_is_never_sampled(tmp_path, tied):
    for name, padding in (("plain", 0), ("padded", 37)):
        tiny_model.write_hugging_face(tmp_path / name, tiny_model.Spec(tied=tied, padding=padding))
    rng = random.Random(6)
    prompts = [[rng.randrange(384) for _ in range(n)] for n in (3, 60)]
    all_rows = numpy_reference.NumpyModel(tmp_path / "padded", kv_bf16=True)
    assert any(id >= 384 for prompt in prompts for id in all_rows.generate(prompt, 12, ignore_eos=True)["tokens"])
    plain = generate(tmp_path / "plain", prompts, "avx2")
    assert generate(tmp_path / "padded", prompts, "avx2") == plain
