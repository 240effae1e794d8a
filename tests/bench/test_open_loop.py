"""The open-loop client against a server that misbehaves as asked."""

import contextlib
import socketserver
import threading
import time

import pytest

import open_loop
import stream_client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
REFUSAL = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 17\r\n\r\n{"error": "busy"}'


def pieces(*texts, pause=0.0):
    def reply(send):
        for text in texts:
            send(text)
            time.sleep(pause)
    return reply


@contextlib.contextmanager
def serving(reply):
    """A server whose every answer is reply(send)."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            with contextlib.suppress(OSError):
                reply(self.request.sendall)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def ask(address, dues=(0.0,), drain=5.0):
    message = stream_client.request_bytes(address, [2, 3], 3)
    return open_loop.ask_all(address, [(due, message) for due in dues], drain)


def test_tokens_are_counted_however_they_are_cut():
    with serving(pieces(HEAD + b'data: {"a"}\n\nda', b'ta: {"b"}\n\ndata', b': {"c"}\n\n', b"data: [DO", b"NE]\n\n", pause=0.02)) as address:
        (answer,) = ask(address)
    assert (answer.status, answer.events, answer.whole, answer.error) == (200, 3, True, "")
    assert 0.01 < answer.last - answer.first < 0.5


def test_requests_go_out_when_due_whatever_the_others_do():
    with serving(pieces(HEAD + b"data: {}\n\n", b"data: [DONE]\n\n", pause=0.2)) as address:
        dues = [0.02 * i for i in range(20)]
        answers = ask(address, dues)
    assert all(answer.whole for answer in answers)
    assert [answer.due - answers[0].due for answer in answers] == pytest.approx(dues)
    assert all(0 <= answer.late < 0.15 for answer in answers)


def test_a_refusal_is_a_status_with_its_words():
    with serving(pieces(REFUSAL)) as address:
        (answer,) = ask(address)
    assert answer.status == 429
    assert "busy" in answer.error
    assert not answer.first


def test_an_answer_that_breaks_off_is_an_error_and_one_that_was_cut_off_is_none():
    with serving(pieces(HEAD + b"data: {}\n\ndata: {}\n\n")) as address:
        (broken,) = ask(address)
    assert "broke off after 2 tokens" in broken.error
    with serving(pieces(HEAD + b"data: {}\n\n", b"", pause=1.0)) as address:
        (unfinished,) = ask(address, drain=0.3)
    assert (unfinished.error, unfinished.whole, unfinished.events) == ("", False, 1)


def test_nobody_there_is_an_error():
    (answer,) = ask("127.0.0.1:1")
    assert answer.error
    assert not answer.sent
