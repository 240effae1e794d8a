"""The mixes have the statistics of the traces that they stand for."""

import io
import itertools
import json

import pytest

import mixes
from quantiles import QuantileTable, share

REQUESTS = 6000
# Of the whole traces, as published: prompt, answer.
STATED = {
    "mooncake": {"prompt": {0.5: 6909, 0.9: 27367, 0.99: 85401}, "answer": {0.5: 350, 0.9: 597, 0.99: 1120}},
    "azure": {"prompt": {0.5: 1020, 0.9: 2735, 0.99: 4142}, "answer": {0.5: 129, 0.9: 424, 0.99: 601}},
}
# Tokens of a prompt that no earlier one of the trace has in front.
STATED_UNKNOWN = {0.5: 2470, 0.9: 19012, 0.99: 71941}
STATED_KNOWN_SHARE = 0.374


def draw(mix, seed=7):
    return list(itertools.islice(mixes.MIXES[mix](seed), REQUESTS))


def known_tokens(requests):
    """Of each request: tokens in front that an earlier request has."""
    seen, found = set(), []
    for request in requests:
        leading = list(itertools.takewhile(seen.__contains__, request.blocks))
        found.append(min(len(leading) * mixes.BLOCK_TOKENS, request.prompt_tokens))
        seen.update(request.blocks)
    return found


def test_share_is_the_smallest_value_that_enough_do_not_exceed():
    values = list(range(100, 0, -1))
    assert [share(values, part) for part in (0, 0.01, 0.5, 0.99, 1)] == [1, 1, 50, 99, 100]
    assert share([5], 0.99) == 5


def test_a_table_draws_straight_lines_between_its_quantiles():
    table = QuantileTable((0, 0.5, 1), (10, 20, 100))
    assert [table.at(part) for part in (0, 0.25, 0.5, 0.75, 1)] == [10, 15, 20, 60, 100]


@pytest.mark.parametrize("mix", mixes.MIXES)
def test_lengths_have_the_traces_quantiles(mix):
    requests = draw(mix)
    lengths = {"prompt": [request.prompt_tokens for request in requests], "answer": [request.output_tokens for request in requests]}
    for what, quantiles in STATED[mix].items():
        for part, stated in quantiles.items():
            assert share(lengths[what], part) == pytest.approx(stated, rel=0.12), (what, part)


def test_mooncakes_prompts_share_as_much_as_the_traces():
    requests = draw("mooncake")
    known = known_tokens(requests)
    tokens = [request.prompt_tokens for request in requests]
    assert sum(known) / sum(tokens) == pytest.approx(STATED_KNOWN_SHARE, abs=0.05)
    # A run of a minute has what the trace has in an hour.
    assert sum(known[100:400]) / sum(tokens[100:400]) > 0.25
    unknown = [all_of - some for all_of, some in zip(tokens, known)]
    for part, stated in STATED_UNKNOWN.items():
        assert share(unknown, part) == pytest.approx(stated, rel=0.3), part


@pytest.mark.parametrize("mix", mixes.MIXES)
def test_a_seed_repeats_itself_and_no_other(mix):
    assert draw(mix) == draw(mix)
    assert draw(mix) != draw(mix, seed=8)


@pytest.mark.parametrize("mix", mixes.MIXES)
def test_a_prompt_has_a_name_for_each_block_begun(mix):
    assert all(len(request.blocks) == mixes.blocks_of(request.prompt_tokens) for request in draw(mix))


def test_traces_are_read_as_published():
    line = json.dumps({"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 14]})
    assert list(mixes.TRACES["mooncake"]([line])) == [mixes.MixRequest(600, 5, (0, 14))]
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,1025,109\n"
    assert list(mixes.TRACES["azure"](io.StringIO(text))) == [
        mixes.MixRequest(374, 44, (0,)), mixes.MixRequest(1025, 109, (1, 2, 3))]


@pytest.mark.parametrize("scale", [1, 0.25, 0.03])
def test_equal_blocks_are_equal_text_under_one_salt(scale):
    text = mixes.PromptText(vocab=2048, seed=1)
    first = mixes.MixRequest(1500, 1, (0, 1, 2))
    second = mixes.MixRequest(1600, 1, (0, 1, 3, 4))

    def ids(request, salt):
        found = json.loads(text.prompt(request, salt, scale))
        assert len(found) == mixes.scaled(request.prompt_tokens, scale)
        assert all(2 <= token < 2048 for token in found)
        return found

    equal = 2 * round(mixes.BLOCK_TOKENS * scale)
    assert ids(first, 1)[:equal] == ids(second, 1)[:equal]
    assert ids(first, 1)[equal:equal + 8] != ids(second, 1)[equal:equal + 8]
    assert ids(first, 1)[:8] != ids(first, 2)[:8]
