"""What only a cluster does: the hand-off, and that nobody can tell it from one process."""

import concurrent.futures
import http.client
import json
import re

import pytest

from tools.launcher import api_client, cluster

PROMPTS = [f"Tell me about the number {i}." * (1 + i % 3 * 40) for i in range(12)]


def ask(instance, prompt, **options):
    body = {"model": cluster.model_name(instance), "prompt": prompt, "max_tokens": 16, "temperature": 0, "stream": False}
    return api_client.ask(instance.http, "/v1/completions", body | options, 60)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 5}], ids=["greedy", "seeded"])
def test_the_cluster_says_what_the_standalone_says(cluster_server, standalone_server, options):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        split = list(pool.map(lambda prompt: ask(cluster_server, prompt, **options).outcome(), PROMPTS))
    whole = [ask(standalone_server, prompt, **options).outcome() for prompt in PROMPTS]
    assert split == whole


def test_a_long_prompt_is_prefilled_elsewhere_and_says_so(cluster_server):
    reply = ask(cluster_server, "A prompt that nobody has sent before, and long: " + "many words, " * 400)
    assert reply.headers["x-longhaul-path"] == "remote"
    assert reply.headers["x-longhaul-prefill"].startswith("prefill-")
    assert reply.headers["x-longhaul-decode"].startswith("decode-")
    assert int(reply.headers["x-longhaul-kv-bytes"]) > 1_000_000


def test_probes(server):
    for path in ("/livez", "/readyz", "/health"):
        assert cluster.get(server.http, path)[0] == 200, path


def test_every_process_has_metrics_in_prometheus_form(cluster_server):
    for process in cluster_server.processes:
        status, body = cluster.get(process.http, "/metrics")
        assert status == 200
        samples = [line for line in body.splitlines() if line and not line.startswith("#")]
        assert samples, process.name
        assert all(re.fullmatch(r"[a-zA-Z_:][\w:]*(\{.*\})? \S+( \d+)?", line) for line in samples)


def test_what_is_no_json_is_refused(server):
    connection = http.client.HTTPConnection(server.http, timeout=10)
    connection.request("POST", "/v1/completions", "{not json", {"content-type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 400
    assert json.loads(reply.read())["error"]["type"] == "invalid_request_error"
    connection.close()


def test_an_unknown_route_is_404(server):
    status, body = cluster.get(server.http, "/v1/no-such-thing")
    assert status == 404 and "error" in json.loads(body)


def test_many_clients_at_once(cluster_server, connect):
    client = connect(cluster_server)
    model_id = client.models.list().data[0].id

    def one(i):
        reply = client.completions.create(model=model_id, prompt=f"Number {i}:", max_tokens=8, temperature=0)
        return reply.usage.completion_tokens

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(48))) == [8] * 48
