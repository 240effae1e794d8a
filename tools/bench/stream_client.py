"""Clients of the completions API that take times: one request's first token, and the tokens of many streams."""

import contextlib
import json
import multiprocessing
import selectors
import socket
import time

EVENT = b"data: "
DONE = b"data: [DONE]"


def request_bytes(host, prompt, output_tokens):
    """A streamed completion of token ids (a list, or its JSON text), as it goes over the wire."""
    options = json.dumps({"max_tokens": output_tokens, "stream": True, "ignore_eos": True, "temperature": 0})
    ids = prompt if isinstance(prompt, str) else json.dumps(prompt)
    body = f'{{"prompt": {ids}, {options[1:]}'.encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(address):
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class FirstToken:
    """A request of one token: when it was sent, when the token came, and the answer's headers."""

    def __init__(self, address, prompt):
        message = request_bytes(address, prompt, 1)
        with contextlib.closing(connect(address)) as connection:
            self.sent = time.monotonic()
            connection.sendall(message)
            answer = b""
            while EVENT not in answer:
                answer += _more(connection, answer)
            self.came = time.monotonic()
            while DONE not in answer:
                answer += _more(connection, answer)
        lines = answer.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])

    @property
    def ms(self):
        return (self.came - self.sent) * 1e3


def _more(connection, answer):
    piece = connection.recv(1 << 16)
    if not piece:
        raise RuntimeError(f"the answer broke off: {answer[-500:]!r}")
    return piece


def _watch(address, messages, started, stop, results):
    selector = selectors.DefaultSelector()
    times = [[] for _ in messages]
    for i, message in enumerate(messages):
        connection = connect(address)
        connection.sendall(message)
        selector.register(connection, selectors.EVENT_READ, i)
    while not stop.is_set():
        for key, _ in selector.select(0.05):
            piece = key.fileobj.recv(1 << 16)
            if not piece:
                selector.unregister(key.fileobj)
            times[key.data] += [time.monotonic()] * piece.count(EVENT)
        if not started.is_set() and all(times):
            started.set()
    results.put(times)


class StreamWatch:
    """Streams that run at the same time in a process of their own, and when each of their tokens came."""

    def __init__(self, address, prompts, output_tokens):
        self._started = multiprocessing.Event()
        self._stop = multiprocessing.Event()
        self._results = multiprocessing.Queue()
        messages = [request_bytes(address, prompt, output_tokens) for prompt in prompts]
        self._process = multiprocessing.Process(target=_watch,
                                                args=(address, messages, self._started, self._stop, self._results), daemon=True)
        self._process.start()

    def wait_started(self, seconds):
        """Until all streams have a token."""
        if not self._started.wait(seconds):
            raise RuntimeError(f"not all streams began within {seconds:g} s")

    def finish(self):
        """[stream][token]: seconds of the monotonic clock. Ends the streams."""
        self._stop.set()
        times = self._results.get(timeout=60)
        self._process.join()
        return times
