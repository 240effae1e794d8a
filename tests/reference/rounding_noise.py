"""How far bfloat16 may move the distance between a token's logit and its runner-up's: measured, case by case.

The kernels compute a prompt's keys and values from rounded operands (kernels/cpu/cpu_backend.h says which), so these
are off by some thousandths to hundredths. What that does to a logit differs from one to the next by a factor of ten: at
the seventh token of 7K-text-0 errors of the very same size move the gap by 0.10 (root mean square), at its sixth by
0.01. No bound of one size fits both.

So the bound is measured. RoundedModel computes the prompt as the kernels do; its errors, each position's with a random
sign, are draws of what another order of additions might have made of them; their root mean square at each token is
that token's noise. Tokens are decoded in float32 then, but for the keys and values that they leave.

That rounding is all there is, was measured too. At 7K-text-0 the kernels' keys and values (AVX512-BF16) differ from
float32's in each layer by as much as RoundedModel's do (values: 0.24% in the first layer, 1.62% and 1.65% in the worst,
1.09% and 1.10% in the last), and at AVX2, where products are float32, by as much as numpy's with nothing but keys and
values rounded (0.60% in the last layer, both). Over the 1,017 tokens of the golden file the noise is 0.020 (root mean
square), the kernels' error 0.023, at AVX2 0.015. The largest, 0.37 at that seventh token, is made by no layer and no
stretch of the prompt alone.
"""

import copy

import numpy as np

from numpy_reference import NumpyModel, round_to_bf16

DRAWS = 24


class RoundedModel(NumpyModel):
    """Prefill as at AVX512-BF16 and above: operands of matrix products, queries, attention weights, keys and values."""

    def __init__(self, path):
        super().__init__(path, kv_bf16=True)
        self.layers = [
            {name: round_to_bf16(w) if w.ndim == 2 else w for name, w in layer.items()} for layer in self.layers
        ]

    def operand(self, x):
        return round_to_bf16(x)


def gap_noise(exact, rounded, exact_cache, prompt, result, seed):
    """For each token of `result`, what `exact` generated: the root mean square of the gap's errors.

    `exact_cache` holds the prompt, and perhaps more behind it.
    """
    end = len(prompt) - 1  # the last token is the first decode row, which is not rounded
    rounded_cache = rounded.new_cache(end)
    rounded.forward(prompt[:end], rounded_cache)
    fed = [prompt[-1], *result["tokens"][:-1]]
    rows = np.arange(len(fed))
    cache = exact.new_cache(end + len(fed))
    decoding = copy.copy(exact)
    decoding.kv_bf16 = True
    chance = np.random.default_rng(seed)
    config = exact.config
    squares = np.zeros(len(fed))
    for _ in range(DRAWS):
        signs = chance.choice(np.float32([-1, 1]), size=(config.layers, config.kv_heads, end, 1))
        for name in ("keys", "values"):
            true, off = getattr(exact_cache, name)[:, :, :end], getattr(rounded_cache, name)
            getattr(cache, name)[:, :, :end] = true + signs * (off - true)
        cache.tokens = end
        logits = decoding.forward(fed, cache, all_logits=True)
        gaps = logits[rows, result["tokens"]] - logits[rows, result["runners_up"]]
        squares += np.square(gaps - np.asarray(result["gaps"]))
    return np.sqrt(squares / DRAWS)
