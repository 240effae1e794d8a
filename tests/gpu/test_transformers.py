"""Logits and greedy tokens against Hugging Face transformers, where it is installed (it brings torch, which is heavy).

The truth is transformers in float32. The yardstick is transformers in bfloat16 on the same weights: its error against the
truth is what bfloat16 does to this model behind this prompt. Ours (root mean square over all tokens of the vocabulary and all
steps) may be ERROR_SHARE of it: we round the operands of the same products, but the residual stream, the norms and the logits
are float32 here, and bfloat16 there.

Greedy tokens must be the truth's, but where the two best logits lie nearer than rounding reaches: an error of root mean square
e in both of them moves their distance by 1.4 e, and TIE_ERRORS e is four deviations of that. Every step is asked behind the
truth's own tokens, so one tie hides nothing behind it.

Prompts are prefilled in chunks of 512 tokens, then of 37, which must change no bit.
"""

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reference"))

import tiny_model  # noqa: E402
import truth_cases  # noqa: E402
from tests.router.text import tokenizer_vocabularies  # noqa: E402
from tools.launcher import build, model  # noqa: E402

torch = pytest.importorskip("torch", reason="torch and transformers are not installed")
transformers = pytest.importorskip("transformers", reason="torch and transformers are not installed")

LENGTHS = (10, 300, 3000)
STEPS = 24
ERROR_SHARE = 1.0
TIE_ERRORS = 6
SECONDS = 300

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 512}
# Shaped as published models are, with fewer layers: Llama 3's heads, Qwen2 0.5B, Qwen3 0.6B.
SPECS = {
    "llama": tiny_model.Spec("llama", layers=6, hidden=1024, heads=8, kv_heads=2, head_dim=128, ffn_hidden=2816,
                             rope_theta=500000.0, rope_scaling=LLAMA3, tied=False),
    "qwen2": tiny_model.Spec("qwen2", layers=6, hidden=896, heads=14, kv_heads=2, head_dim=64, ffn_hidden=4864,
                             rope_theta=1000000.0),
    "qwen3": tiny_model.Spec("qwen3", layers=6, hidden=1024, heads=16, kv_heads=8, head_dim=128, ffn_hidden=3072,
                             rope_theta=1000000.0),
}
REAL = "smollm2"


@dataclass(frozen=True)
class Truth:
    """What transformers says behind one prompt."""

    prompt: list
    tokens: list  # greedy, of float32
    logprobs: np.ndarray  # [STEPS][vocab], of float32
    error: float  # of bfloat16, root mean square


def load(where, dtype):
    """Loaded anew for each type: a network that is converted rounds its rotations' frequencies too, which nobody serves."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=dtype).to(device).eval()


def decode(network, prompt, follow=None):
    """(tokens, log probabilities [STEPS][vocab]) behind a prompt: greedy, or those of the tokens to follow."""
    tokens, rows = [], []
    with torch.no_grad():
        cache = network(torch.tensor([prompt[:-1]], device=network.device), logits_to_keep=1).past_key_values
        token = prompt[-1]
        for step in range(STEPS):
            reply = network(torch.tensor([[token]], device=network.device), past_key_values=cache)
            rows.append(torch.log_softmax(reply.logits[0, -1].double(), dim=-1).cpu().numpy())
            tokens.append(int(rows[-1].argmax()))
            token = follow[step] if follow else tokens[-1]
    return tokens, np.stack(rows)


def root_mean_square(x):
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.fixture(scope="module", params=[*SPECS, REAL])
def subject(request, tmp_path_factory):
    """(path of a model, [Truth of each length])."""
    if request.param == REAL:
        path = model.DEFAULT.path
        if not path.exists():
            pytest.skip("the default model has not been fetched; ./longhaul up fetches it")
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        ledger = next(case.text for case in truth_cases.CASES if case.length == "7K" and case.form == "text")
        ids = tokenizer_vocabularies.smollm2(path)[1].encode(ledger).ids
        prompts = [ids[:length] for length in LENGTHS]
    else:
        spec = SPECS[request.param]
        spec.context, spec.vocab = 4096, 4096
        path = tmp_path_factory.mktemp(request.param) / request.param
        tiny_model.write_hugging_face(path, spec, "BF16")
        where = {"pretrained_model_name_or_path": path}
        chance = np.random.default_rng(7)
        prompts = [chance.integers(0, spec.vocab, length).tolist() for length in LENGTHS]
    network = load(where, torch.float32)
    exact = [decode(network, prompt) for prompt in prompts]
    network = load(where, torch.bfloat16)
    rounded = [decode(network, prompt, tokens)[1] for prompt, (tokens, _) in zip(prompts, exact)]
    return path, [Truth(prompt, tokens, logprobs, root_mean_square(other - logprobs))
                  for prompt, (tokens, logprobs), other in zip(prompts, exact, rounded)]


def ours(path, truths, backend, folder, chunk):
    """[(tokens, log probabilities [STEPS][vocab])], each step behind the truth's tokens."""
    lines = [" ".join(map(str, truth.prompt + truth.tokens)) for truth in truths]
    result = subprocess.run(
        [build.binary("model_generate"), f"--model={path}", f"--backend={backend}", f"--chunk={chunk}", "--follow",
         f"--threads={len(os.sched_getaffinity(0))}", f"--max_tokens={STEPS}", f"--logprobs={folder / 'logprobs'}"],
        input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 0, result.stderr
    logprobs = np.fromfile(folder / "logprobs", dtype=np.float32).reshape(len(truths), STEPS, -1)
    tokens = [list(map(int, line.split())) for line in result.stdout.splitlines()]
    return list(zip(tokens, logprobs, strict=True))


@pytest.mark.timeout(4 * SECONDS)
def test_logits_and_tokens_are_those_of_transformers_however_a_prompt_is_cut(subject, backend, tmp_path, capsys):
    path, truths = subject
    replies = ours(path, truths, backend, tmp_path, chunk=512)
    failures = []
    for truth, (tokens, logprobs) in zip(truths, replies):
        error = root_mean_square(logprobs - truth.logprobs)
        spread = float(np.std(truth.logprobs))
        best, row = np.array(truth.tokens), np.arange(STEPS)
        gaps = truth.logprobs[row, best] - truth.logprobs[row, tokens]
        name = f"{path.name} on {backend}, {len(truth.prompt)} tokens"
        with capsys.disabled():
            print(f"\n{name}: error {error:.4f} ({error / spread:.2%} of the logits' spread), transformers' in bfloat16 "
                  f"{truth.error:.4f}; {np.count_nonzero(gaps)} of {STEPS} tokens others at near ties", end="")
        if not error <= ERROR_SHARE * truth.error:
            failures.append(f"{name}: an error of {error}, transformers' in bfloat16 is {truth.error}")
        if gaps.max() > TIE_ERRORS * error:
            failures.append(f"{name}: another token though the best leads by {gaps.max()}")
    assert not failures
    for (_, wanted), (_, got) in zip(replies, ours(path, truths, backend, tmp_path, chunk=37)):
        np.testing.assert_array_equal(got, wanted)
