"""An open-loop client of the completions API: requests go out when they are due, whatever has become of the others.

One thread with an event loop, and no work but sending and taking times; how late it sent is in every answer, for the reader to
judge whether the client was the bottleneck.
"""

import asyncio
import dataclasses
import gc
import time

from stream_client import DONE, EVENT

STATUS = slice(9, 12)  # of "HTTP/1.1 200 OK"
ERROR_BYTES = 300


@dataclasses.dataclass
class Answer:
    """What became of a request. Times are seconds of the monotonic clock, 0 for what has not happened."""

    due: float
    sent: float = 0
    first: float = 0
    last: float = 0
    events: int = 0  # tokens; now and then one holds none, or two
    status: int = 0
    whole: bool = False
    error: str = ""

    @property
    def late(self):
        return self.sent - self.due if self.sent else 0


class _Exchange(asyncio.Protocol):
    def __init__(self, message, answer, ended):
        self._message, self._answer, self._ended = message, answer, ended
        self._transport = None
        self._tail = b""
        self._cut_off = False

    def connection_made(self, transport):
        self._transport = transport
        self._answer.sent = time.monotonic()
        transport.write(self._message)
        self._message = None

    def data_received(self, data):
        answer, now = self._answer, time.monotonic()
        if not answer.status:
            answer.status = int(data[STATUS])
        if answer.status != 200:
            answer.error += data.decode(errors="replace")[-ERROR_BYTES:]
            if data.rstrip().endswith(b"}"):
                self._transport.close()
            return
        *pieces, self._tail = (self._tail + data).split(b"\n\n")
        if any(DONE in piece for piece in pieces):
            answer.whole = True
            self._transport.close()
        events = sum(EVENT in piece for piece in pieces) - answer.whole
        if events > 0:
            answer.first = answer.first or now
            answer.last = now
            answer.events += events

    def connection_lost(self, error):
        answer = self._answer
        if not answer.error and not answer.whole and not self._cut_off:
            answer.error = f"the answer broke off after {answer.events} tokens: {error or self._tail!r}"
        if not self._ended.done():
            self._ended.set_result(None)

    def cut_off(self):
        self._cut_off = True
        if self._transport is not None:
            self._transport.abort()


async def _ask(address, message, answer, exchanges):
    loop = asyncio.get_running_loop()
    await asyncio.sleep(answer.due - time.monotonic())
    ended = loop.create_future()
    exchange = _Exchange(message, answer, ended)
    exchanges.append(exchange)
    host, port = address.rsplit(":", 1)
    try:
        await loop.create_connection(lambda: exchange, host, int(port))
        await ended
    except OSError as error:
        answer.error = str(error)


async def _ask_all(address, messages, begin, drain_seconds):
    exchanges, answers = [], [Answer(begin + offset) for offset, _ in messages]
    tasks = [asyncio.create_task(_ask(address, message, answer, exchanges)) for (_, message), answer in zip(messages, answers)]
    last_due = max(answer.due for answer in answers)
    done, pending = await asyncio.wait(tasks, timeout=last_due + drain_seconds - time.monotonic())
    for task in pending:
        task.cancel()
    for exchange in exchanges:
        exchange.cut_off()
    if pending:
        await asyncio.wait(pending)
    for task in done:
        task.result()
    return answers


def ask_all(address, messages, drain_seconds):
    """Answers to [(seconds from now, bytes of a request)], in order. Those not whole `drain_seconds` after the last one was due are
    cut off, and keep what had come."""
    gc.collect()
    gc.disable()  # a collection takes as long as many tokens
    try:
        return asyncio.run(_ask_all(address, messages, time.monotonic(), drain_seconds))
    finally:
        gc.enable()
