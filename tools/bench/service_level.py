"""Service levels: what a request was promised, whether it was kept, and the rate up to which it is kept often enough. Pure."""

import bisect
import dataclasses
import math

ATTAINMENT = 0.9
VERDICTS = ("met", "first token", "time per token", "refused", "failed", "unfinished")
REFUSED = (429, 503)


class Ideal:
    """Seconds to the first token of a prompt alone, by its length: straight lines between what was measured."""

    def __init__(self, measured):
        """`measured`: [(tokens, seconds)], at least two lengths."""
        self._points = sorted(measured)

    def seconds(self, tokens):
        i = min(max(bisect.bisect_left(self._points, (tokens,)), 1), len(self._points) - 1)
        (low, low_seconds), (high, high_seconds) = self._points[i - 1], self._points[i]
        return max(low_seconds + (tokens - low) / (high - low) * (high_seconds - low_seconds), self._points[0][1])


@dataclasses.dataclass(frozen=True)
class ServiceLevel:
    ideal: Ideal
    long_tokens: int  # a prompt with more is long
    short_seconds: float = 0.5  # to a short prompt's first token
    long_factor: float = 3.0  # times the ideal, to a long one's
    token_seconds: float = 0.025  # mean of a request's tokens after the first

    def is_long(self, tokens):
        return tokens > self.long_tokens

    def first_token_limit(self, tokens):
        return self.long_factor * self.ideal.seconds(tokens) if self.is_long(tokens) else self.short_seconds


def time_to_first_token(answer):
    """Since it was due: who waits for a late client waits, too."""
    return answer.first - answer.due


def time_per_token(answer, output_tokens):
    """Mean of the tokens after the first; of an unfinished answer, of those that came. None where there is none."""
    tokens = output_tokens if answer.whole else answer.events
    return (answer.last - answer.first) / (tokens - 1) if tokens > 1 else None


def verdict(level, answer, prompt_tokens, output_tokens):
    """One of VERDICTS. An answer cut off while it kept its promises has met them: it is as long as that."""
    if answer.status in REFUSED:
        return "refused"
    if answer.error or (answer.status not in (0, 200)):
        return "failed"
    if not answer.first:
        return "unfinished"
    if time_to_first_token(answer) > level.first_token_limit(prompt_tokens):
        return "first token"
    pace = time_per_token(answer, output_tokens)
    return "time per token" if pace is not None and pace > level.token_seconds else "met"


class RateSearch:
    """The highest rate whose attainment is enough: steps of a factor until one fails and one does not, then halves of what is
    between, in the logarithm."""

    def __init__(self, first_rate, factor=1.6, resolution=1.08):
        self._next, self._factor, self._resolution = first_rate, factor, resolution
        self.best = 0.0  # highest rate that was kept, below the lowest that was not
        self.least_missed = math.inf

    @property
    def rate(self):
        """To try next; None at the end."""
        return self._next

    def add(self, attainment):
        """Of the rate that was to be tried."""
        if attainment >= ATTAINMENT:
            self.best = self._next
        else:
            self.least_missed = self._next
        if math.isinf(self.least_missed):
            self._next = self.best * self._factor
        elif not self.best:
            self._next = self.least_missed / self._factor
        elif self.least_missed / self.best <= self._resolution:
            self._next = None
        else:
            self._next = math.sqrt(self.best * self.least_missed)
