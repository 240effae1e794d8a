"""Writes tests/e2e/golden/truth.json: what the numpy reference says to every case of truth_cases.py.

    OPENBLAS_NUM_THREADS=1 .longhaul/venv/bin/python tests/reference/make_golden.py [MODEL] [--only NAME-PREFIX]

Nothing of Longhaul runs: weights, vocabulary and chat template are read from the GGUF file with PyPI's `gguf`, the
prompt becomes token ids by `tokenizers` and `jinja2`, and numpy computes in float32 with float32 keys and values.
Takes about half an hour on one core. Each case has the digest and number of its prompt's ids; the reference's greedy
tokens (an end token is the last, where there is one), and for each token the runner-up, by how much its logit is
lower, and how far rounding may move that (rounding_noise.py). Cases that --only leaves out stay as they are in the file.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

import gguf  # noqa: E402

from numpy_reference import NumpyModel  # noqa: E402
from prompt_digest import digest_of  # noqa: E402
from rounding_noise import RoundedModel, gap_noise  # noqa: E402
from tests.router.text import chat_template_reference, tokenizer_vocabularies  # noqa: E402
from truth_cases import CASES  # noqa: E402

GOLDEN = ROOT / "tests/e2e/golden/truth.json"
GAP_DIGITS = 5
NOISE_DIGITS = 4


class PromptReader:
    """Token ids of a case, without Longhaul's tokenizer and template."""

    def __init__(self, model_path):
        self.template = gguf.GGUFReader(model_path).fields["tokenizer.chat_template"].contents()
        _, self.tokenizer, _ = tokenizer_vocabularies.smollm2(model_path)

    def tokens(self, case):
        text = case.text
        if case.form == "chat":
            compiled = chat_template_reference.compiled(self.template)
            text = compiled.render(messages=case.chat(), add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def line_of(name, golden):
    return f" {json.dumps(name)}: {json.dumps(golden, separators=(',', ':'))}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / ".longhaul/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--only", default="", help="the cases whose names begin so")
    options = parser.parse_args()

    reader = PromptReader(options.model)
    reference, rounded = NumpyModel(options.model), RoundedModel(options.model)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    golden = {case.name: golden[case.name] for case in CASES if case.name in golden}
    for case in CASES:
        if not case.name.startswith(options.only):
            continue
        prompt = reader.tokens(case)
        cache = reference.new_cache(len(prompt) + case.max_tokens)
        result = reference.generate(prompt, case.max_tokens, cache=cache)
        noise = gap_noise(reference, rounded, cache, prompt, result, seed=len(prompt))
        golden[case.name] = {
            "prompt": digest_of(prompt),
            "prompt_tokens": len(prompt),
            "tokens": result["tokens"],
            "runners_up": result["runners_up"],
            "gaps": [round(gap, GAP_DIGITS) for gap in result["gaps"]],
            "noise": [round(float(error), NOISE_DIGITS) for error in noise],
            "finish": result["finish"],
        }
        print(f"{case.name}: {len(prompt)} tokens, {result['prefill_s']:.1f} s + {result['decode_s']:.1f} s, "
              f"smallest gap {min(result['gaps']):.3f}, "
              f"largest noise {max(noise):.3f}: {reader.tokenizer.decode(result['tokens'])!r}", flush=True)
        GOLDEN.write_text("{\n" + ",\n".join(line_of(*item) for item in golden.items()) + "\n}\n")


if __name__ == "__main__":
    main()
