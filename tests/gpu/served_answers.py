"""What is asked of servers on GPUs, and how their answers are held against those of another computation.

Servers that compute with the same kernels and widths say the same to the last bit of every log probability. GPU and CPU, or
models cut into other numbers of ranks, round differently. Their tokens must be the same but at near ties: with e the root mean
square of what the one makes of the distance between the two best logits, over all tokens until two answers part, an answer may
part from the other's only towards its second best token, and only where that is nearer than TIE_ERRORS e. e itself is bounded by
what bfloat16 does to these models (test_transformers.py measures it: root mean squares of a logit of 0.1 for the default model
and 0.4 for noise; a distance has two logits).
"""

import math
import pathlib
import random
import sys
from dataclasses import dataclass

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "reference")]

import exact_answers  # noqa: E402
import tiny_model  # noqa: E402
import truth_cases  # noqa: E402
from tools.launcher import cluster  # noqa: E402

NOISE_LENGTHS = [40, 41, 63, 64, 65, 100, 127, 128, 129, 200, 300, 511, 512, 513, 700, 1000, 1500, 2049, 4000, 7000]
WORDS = 266  # of the tiny tokenizer
NOISE_TOKENS = 24
GAP_ERROR_MAX = {"noise": 0.4 * math.sqrt(2), "smollm2": 0.1 * math.sqrt(2)}
TIE_ERRORS = 5
DIVERGED_SHARE_MAX = 0.4
LONG_TOKENS = 200  # so long a prompt is prefilled by a prefill worker, whatever of it is cached
CLIENTS = 8
REQUEST_SECONDS = 300
# Of a GPU that up to five processes share, one of them two models'.
MEMORY = "--gpu_memory_share=0.1"


@dataclass(frozen=True)
class Prompt:
    name: str
    content: object  # a text, token ids, or messages
    tokens: int  # to generate
    slow: bool = False  # on a CPU


def noise_prompts():
    chance = random.Random(11)
    return [Prompt(f"noise-{n}", [chance.randrange(3, WORDS) for _ in range(n)], NOISE_TOKENS) for n in NOISE_LENGTHS]


def real_prompts():
    # As token ids a case is its text again.
    return [Prompt(case.name, case.chat() if case.form == "chat" else case.text, case.max_tokens, case.length != "short")
            for case in truth_cases.CASES if case.form != "tokens"]


def write_noise(path):
    """A model of noise with heads for two ranks."""
    spec = tiny_model.Spec(layers=4, hidden=512, heads=8, kv_heads=2, head_dim=64, ffn_hidden=1408, vocab=WORDS, context=8192)
    tiny_model.write_hugging_face(path, spec, "BF16")


def ask_all(path, prompts, **shape):
    """{prompt's name: (Answer, headers)} of a server of that shape, several prompts at once."""
    instance = cluster.start(cluster.Shape(str(path), port=0, **shape))
    try:
        def one(prompt):
            (answer,), _, headers = exact_answers.ask(instance, prompt.content, REQUEST_SECONDS, max_tokens=prompt.tokens)
            return prompt.name, (answer, headers)

        return dict(exact_answers.at_once(CLIENTS, one, prompts))
    finally:
        instance.stop()


@dataclass(frozen=True)
class Reference:
    """What another computation says to a prompt."""

    tokens: tuple
    runners_up: tuple
    gaps: tuple


def reference_of(answer):
    tops = [sorted(top, key=lambda pair: -pair[1]) for top in answer.tops]
    return Reference(answer.tokens, tuple(top[1][0] for top in tops), tuple(top[0][1] - top[1][1] for top in tops))


def hold(name, references, answers, capsys):
    """Holds answers against references, {prompt: either}, by the rule above."""
    errors, partings = [], []
    for prompt, reference in references.items():
        answer = answers[prompt][0]
        for step, (token, tops) in enumerate(zip(answer.tokens, answer.tops)):
            best, second, gap = reference.tokens[step], reference.runners_up[step], reference.gaps[step]
            if token != best:
                partings.append((gap, prompt, step, token == second))
                break
            tops = dict(tops)
            if second in tops:
                errors.append(tops[best] - tops[second] - gap)
        else:
            assert len(answer.tokens) == len(reference.tokens), prompt
    error = math.sqrt(sum(error * error for error in errors) / len(errors))
    with capsys.disabled():
        print(f"\n{name}: distances of the two best logits are off by {error:.4f} over {len(errors)} tokens; "
              f"{len(partings)} of {len(references)} answers part: {sorted(partings)[::-1]}")
    assert error <= GAP_ERROR_MAX[name.split()[0]]
    assert len(partings) <= DIVERGED_SHARE_MAX * len(references)
    for gap, prompt, step, second in partings:
        assert second and gap <= TIE_ERRORS * error, f"{prompt}, token {step}: the best leads by {gap}"


def hold_to_the_bit(answers, others):
    """Holds {prompt: (Answer, headers)} of a cluster against another server's; its prefill workers must have had a part."""
    different = [name for name in answers if answers[name][0] != others[name][0]]
    assert not different, [(name, answers[name], others[name]) for name in different[:2]]
    moved = {name: int(headers["x-longhaul-kv-bytes"]) for name, (answer, headers) in answers.items()
             if answer.prompt_tokens >= LONG_TOKENS}
    assert moved and all(moved.values()), moved
