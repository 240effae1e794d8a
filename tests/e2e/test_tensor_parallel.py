"""Workers whose model is shared by several ranks: the same answers, whatever the widths of the two that share a prompt.

The default model has three key/value heads, so three ranks can share it. Sums over ranks round differently, so what one
rank says holds but for near ties, as in test_truth.py; equal widths say the same bits.
"""

import pytest

import exact_answers
import test_truth
from tests.reference import truth_cases

THREE = ("--tensor_parallel=3", "--threads=1")
CASES = [case for case in truth_cases.CASES if case.length == "short"][::6] + test_truth.CASES["2K"][:1]


def answers(instance):
    def one(case):
        tokens = exact_answers.token_ids(instance, case, 60)
        prompt = test_truth.prompt_of(case, tokens)
        (answer,), _, headers = exact_answers.ask(
            instance, prompt, test_truth.REQUEST_SECONDS, max_tokens=case.max_tokens, cache_salt="ranks"
        )
        return answer, headers["x-longhaul-path"]

    return dict(zip((case.name for case in CASES), exact_answers.at_once(3, one, CASES)))


@pytest.fixture(scope="module")
def shapes(make_server):
    """shape(prefill ranks, decode ranks): a cluster of one worker each; it stops with the test that asked for it."""
    started = []

    def shape(prefill, decode):
        flags = {1: ("--threads=1",), 3: THREE}
        started.append(make_server(prefill=1, decode=1, router_flags=("--wait_limit_s=600",),
                                   prefill_flags=flags[prefill], decode_flags=flags[decode]))
        return started[-1]

    yield shape
    for instance in started:
        instance.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("prefill, decode", [(3, 1), (1, 3)])
def test_unequal_widths_follow_the_reference_and_the_standalone(shapes, standalone_server, prefill, decode):
    split, whole = answers(shapes(prefill, decode)), answers(standalone_server)
    assert sum(path == "remote" for _, path in split.values()) >= len(CASES) // 2
    equal = 0
    for name, (answer, _) in split.items():
        test_truth.follow(name, test_truth.GOLDEN[name], 0, answer)
        equal += answer.tokens == whole[name][0].tokens
    assert equal >= (1 - test_truth.DIVERGED_SHARE_MAX) * len(CASES), f"{equal} of {len(CASES)} are equal"


@pytest.mark.timeout(900)
def test_equal_widths_equal_one_process_bit_for_bit(shapes, make_server):
    standalone = make_server(standalone=True, worker_flags=THREE)
    split, whole = answers(shapes(3, 3)), answers(standalone)
    standalone.stop()
    assert {name: answer for name, (answer, _) in split.items()} == {name: answer for name, (answer, _) in whole.items()}
