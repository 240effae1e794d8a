"""What users say is theirs: no log holds a word of a prompt or of an answer, whatever becomes of the request."""

import pathlib
import socket

import pytest

from tools.launcher import api_client, cluster

SECRET = "xylophonic-quagga-7731"


def test_no_log_holds_a_prompt(server):
    body = {"model": cluster.model_name(server), "prompt": f"Say {SECRET}. " * 40, "max_tokens": 8, "temperature": 0, "stream": False}
    assert api_client.ask(server.http, "/v1/completions", body, 60).outcome()
    for bad in ({"temperature": SECRET}, {"prompt": SECRET * 20_000}, {"stop": [SECRET] * 99}):
        with pytest.raises(api_client.BadReply):
            api_client.ask(server.http, "/v1/completions", body | bad, 60)
    cluster.get(server.http, f"/{SECRET}")
    # A length that is too short: the rest of the body is taken for a request line.
    host, port = server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}{SECRET}\r\n\r\n".encode())
        answers = b""
        while part := connection.recv(65536):
            answers += part
    assert answers.count(b"HTTP/1.1 400") == 2, answers
    for process in server.processes:
        text = pathlib.Path(process.log).read_text(encoding="utf-8", errors="replace")
        assert text, process.name
        assert SECRET not in text, process.name
