"""What counts as kept, and how the rate is found up to which enough is."""

import itertools

import pytest

import goodput
import mixes
from open_loop import Answer
from service_level import ATTAINMENT, Ideal, RateSearch, ServiceLevel, time_per_token, time_to_first_token, verdict

LEVEL = ServiceLevel(Ideal([(100, 0.1), (10_000, 1.0), (100_000, 20.0)]), long_tokens=8192)


def answer(first, token_seconds=0.02, tokens=11, **others):
    """Of a request that was due at 100 s and sent a little later."""
    last = 100 + first + token_seconds * (tokens - 1)
    facts = {"sent": 100.01, "first": 100 + first, "last": last, "events": tokens, "status": 200, "whole": True}
    return Answer(100, **(facts | others))


def test_the_ideal_is_a_straight_line_between_lengths_and_goes_on():
    ideal = LEVEL.ideal
    assert ideal.seconds(10_000) == pytest.approx(1.0)
    assert ideal.seconds(5_050) == pytest.approx(0.55)
    assert ideal.seconds(190_000) == pytest.approx(39.0)
    assert ideal.seconds(1) == 0.1, "never less than the shortest that was measured"


def test_times_are_of_when_it_was_due_and_of_the_tokens_after_the_first():
    assert time_to_first_token(answer(0.3)) == pytest.approx(0.3)
    assert time_per_token(answer(0.3, 0.02), 11) == pytest.approx(0.02)
    assert time_per_token(answer(0.3, tokens=1), 1) is None
    # Events may hold two tokens: of a whole answer it is known how many there were.
    assert time_per_token(answer(0.3, 0.02, events=7), 11) == pytest.approx(0.02)


@pytest.mark.parametrize("prompt, given, said", [
    (100, answer(0.49), "met"),
    (100, answer(0.51), "first token"),
    (8192, answer(0.51), "first token"),
    (10_000, answer(2.9), "met"),
    (10_000, answer(3.1), "first token"),
    (100, answer(0.1, 0.024), "met"),
    (100, answer(0.1, 0.026), "time per token"),
    (100, answer(0.1, 9, tokens=1), "met"),
    (100, answer(0.1, 0.024, whole=False), "met"),
    (100, answer(0.1, 0.026, whole=False), "time per token"),
    (100, Answer(100, sent=100, status=200), "unfinished"),
    (100, Answer(100, sent=100), "unfinished"),
    (100, Answer(100, sent=100, status=429, error="busy"), "refused"),
    (100, Answer(100, sent=100, status=503, error="nobody"), "refused"),
    (100, Answer(100, sent=100, status=400, error="no"), "failed"),
    (100, Answer(100, error="connection refused"), "failed"),
    (100, answer(0.1, whole=False, error="the answer broke off"), "failed"),
])
def test_verdicts(prompt, given, said):
    assert verdict(LEVEL, given, prompt, 1 if given.events == 1 else 11) == said


def searched(truth, first_rate, **options):
    found = RateSearch(first_rate, **options)
    tried = []
    while found.rate is not None and len(tried) < 50:
        tried.append(found.rate)
        found.add(1.0 if found.rate <= truth else 0.5)
    return found, tried


@pytest.mark.parametrize("first_rate", [0.1, 1, 7.3, 90])
@pytest.mark.parametrize("truth", [0.33, 1, 7.4, 60])
def test_a_search_ends_beside_the_truth(first_rate, truth):
    found, tried = searched(truth, first_rate)
    assert found.best <= truth < found.least_missed
    assert found.least_missed / found.best <= 1.08
    assert len(tried) <= 25
    assert len(set(tried)) == len(tried)


def test_attainment_at_the_limit_is_enough():
    found = RateSearch(2.0)
    found.add(ATTAINMENT)
    assert found.best == 2.0
    assert found.rate > 2.0


class FakeLoad:
    def tokens(self, request):
        return request.prompt_tokens, request.output_tokens


def test_a_steps_figures_count_each_class_and_leave_the_warmup_out():
    short, long_one = mixes.MixRequest(100, 11, (0,)), mixes.MixRequest(10_000, 11, (0,))
    answers = [answer(9), answer(0.2), answer(0.6), answer(2.0), answer(5.0), Answer(100, sent=100, status=429, error="busy")]
    requests = [short, short, short, long_one, long_one, short]
    arrivals = list(zip(itertools.chain([1.0], itertools.repeat(6.0)), requests))
    figures = goodput.count(LEVEL, FakeLoad(), arrivals, answers, warmup=5)
    assert figures["requests"] == 5
    assert figures["attainment"] == pytest.approx(2 / 5)
    assert figures["short_attainment"] == pytest.approx(1 / 3)
    assert figures["long_attainment"] == pytest.approx(1 / 2)
    assert figures["verdicts"] == {"short": {"met": 1, "first token": 1, "refused": 1}, "long": {"met": 1, "first token": 1}}
    assert figures["short_first_s"] == pytest.approx([0.2, 0.6, 0.6])
    assert figures["long_first_ideals"] == pytest.approx([2.0, 5.0, 5.0])
    assert figures["late_max_s"] == pytest.approx(0.01)
    assert figures["errors"] == ["busy"]
