"""Mixes of requests: how long prompts and answers are, and which prompts begin alike.

A mix is an endless series of requests with the statistics of a published trace, or the trace itself in its published format. A
prompt is named by its blocks of 512 tokens, as in Mooncake's traces: equal names in front are an equal prefix.

Sources of the tables:
  * mooncake: kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl, 12,031 requests (Apache-2.0). All prompts but a
    few share their first block. 38.7% go on from an earlier prompt: their length and the share of it that is known have a table
    each, drawn independently, the lengths of the others one more. In the trace half of those come 400 requests or more after what
    they go on from; here that is any earlier request, so that a run of a minute has the share of known tokens that the trace has
    in an hour.
  * azure: Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_conv.csv, 19,366 requests (CC-BY-4.0; Patel et al., "Splitwise",
    ISCA 2024). It records no prefixes.

In neither do the lengths of prompt and answer depend on each other (correlation of the logarithms below 0.09).
"""

import csv
import dataclasses
import json
import math
import random

from quantiles import QuantileTable

BLOCK_TOKENS = 512
PARTS = (0, .01, .05, .1, .2, .3, .4, .5, .6, .7, .8, .9, .95, .98, .99, .995, 1)

MOONCAKE_GOES_ON = 0.387
MOONCAKE_FRESH = QuantileTable(PARTS, (891, 894, 897, 905, 1092, 1756, 3914, 5264, 7417, 10775, 15871, 25561, 38538, 67212, 89869,
                                       111800, 126195))
MOONCAKE_CONTINUED = QuantileTable(PARTS, (892, 1147, 1627, 2101, 3453, 5501, 7507, 9872, 12556, 15782, 20235, 28963, 40994, 65889,
                                           79183, 94909, 123194))
MOONCAKE_KNOWN = QuantileTable(PARTS, (.015, .058, .148, .288, .519, .652, .765, .847, .905, .937, .961, .981, .990, 1, 1, 1, 1))
MOONCAKE_ANSWER = QuantileTable(PARTS, (1, 3, 10, 24, 100, 213, 291, 350, 399, 447, 504, 597, 698, 893, 1120, 1570, 2000))
AZURE_PROMPT = QuantileTable(PARTS, (2, 29, 181, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083, 4098, 4142, 4831, 14050))
AZURE_ANSWER = QuantileTable(PARTS, (7, 16, 41, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 540, 601, 644, 1000))


@dataclasses.dataclass(frozen=True)
class MixRequest:
    prompt_tokens: int
    output_tokens: int
    blocks: tuple  # names, one for each BLOCK_TOKENS tokens begun


def blocks_of(tokens):
    return math.ceil(tokens / BLOCK_TOKENS)


def mooncake(seed):
    draw = random.Random(seed)
    earlier = []
    next_name = 1
    while True:
        known_blocks, parent = 1, (0,)
        if draw.random() < MOONCAKE_GOES_ON:
            tokens = round(MOONCAKE_CONTINUED.draw(draw))
            known_blocks = max(1, round(tokens * MOONCAKE_KNOWN.draw(draw) / BLOCK_TOKENS))
            long_enough = [blocks for blocks in earlier if len(blocks) >= known_blocks]
            parent = draw.choice(long_enough) if long_enough else (0,)
        else:
            tokens = round(MOONCAKE_FRESH.draw(draw))
        blocks = parent[:min(known_blocks, blocks_of(tokens))]
        fresh = blocks_of(tokens) - len(blocks)
        blocks += tuple(range(next_name, next_name + fresh))
        next_name += fresh
        earlier.append(blocks)
        yield MixRequest(tokens, max(1, round(MOONCAKE_ANSWER.draw(draw))), blocks)


def azure(seed):
    draw = random.Random(seed)
    next_name = 0
    while True:
        tokens = max(2, round(AZURE_PROMPT.draw(draw)))
        end = next_name + blocks_of(tokens)
        yield MixRequest(tokens, max(1, round(AZURE_ANSWER.draw(draw))), tuple(range(next_name, end)))
        next_name = end


def mooncake_trace(lines):
    for line in lines:
        row = json.loads(line)
        yield MixRequest(row["input_length"], row["output_length"], tuple(row["hash_ids"]))


def azure_trace(lines):
    next_name = 0
    for row in csv.DictReader(lines):
        tokens = int(row["ContextTokens"])
        end = next_name + blocks_of(tokens)
        yield MixRequest(tokens, int(row["GeneratedTokens"]), tuple(range(next_name, end)))
        next_name = end


MIXES = {"mooncake": mooncake, "azure": azure}
TRACES = {"mooncake": mooncake_trace, "azure": azure_trace}


class PromptText:
    """Prompts as the JSON text of their token ids: slices of one long random text, so that a million tokens cost no time.

    All ids have as many digits, so that a token's place in the text is known."""

    POOL_TOKENS = 1 << 20

    def __init__(self, vocab, seed):
        digits = len(str(vocab)) - 1
        low, high = 10 ** (digits - 1), min(10 ** digits, vocab)
        self._width = digits + 1
        self._pool = ",".join(map(str, random.Random(seed).choices(range(low, high), k=self.POOL_TOKENS))) + ","

    def tokens(self, name, count):
        """`count` ids, the same for the same name."""
        begin = random.Random(repr(name)).randrange(self.POOL_TOKENS - count + 1)
        return self._pool[begin * self._width:(begin + count) * self._width]

    def prompt(self, request, salt, scale=1.0):
        """The JSON array of a request's ids, its lengths times `scale`. Other salts share no prefix with it."""
        block_tokens = max(1, round(BLOCK_TOKENS * scale))
        left = scaled(request.prompt_tokens, scale)
        pieces = []
        for name in request.blocks:
            count = min(block_tokens, left)
            pieces.append(self.tokens((salt, name), count))
            left -= count
        if left > 0:  # rounding
            pieces.append(self.tokens((salt, request.blocks[-1], "rest"), left))
        return "[" + "".join(pieces)[:-1] + "]"


def scaled(tokens, scale):
    return max(2, round(tokens * scale))
