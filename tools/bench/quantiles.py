"""Shares of ordered values: percentiles of what was measured, and tables of what is to be drawn."""

import bisect
import math


def share(values, part):
    """The smallest value that at least `part` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(part * len(ordered)) - 1))]


class QuantileTable:
    """A distribution by some of its quantiles, straight lines between them."""

    def __init__(self, parts, values):
        self._parts, self._values = parts, values

    def at(self, part):
        i = min(max(bisect.bisect_left(self._parts, part), 1), len(self._parts) - 1)
        low, high = self._parts[i - 1], self._parts[i]
        weight = (part - low) / (high - low)
        return self._values[i - 1] + weight * (self._values[i] - self._values[i - 1])

    def draw(self, random):
        return self.at(random.random())
