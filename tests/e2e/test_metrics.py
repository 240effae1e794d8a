"""What operators scrape: names, units and help of every process, and that nothing is left live at rest."""

import math
import re
import time

import pytest

from tools.launcher import api_client, cluster

LONG_PROMPT = "A prompt for the metrics, long enough to be prefilled elsewhere: " + "more words, " * 300
REST_SECONDS = 10
SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
WORKER_FAMILIES = {
    "longhaul_build_info": "gauge",
    "longhaul_http_requests_total": "counter",
    "longhaul_worker_kv_blocks": "gauge",
    "longhaul_worker_kv_block_bytes": "gauge",
    "longhaul_worker_requests_running": "gauge",
    "longhaul_worker_requests_total": "counter",
    "longhaul_worker_step_seconds": "histogram",
    "longhaul_worker_tokens_total": "counter",
    "longhaul_worker_transfers_total": "counter",
    "longhaul_worker_transfer_bytes_total": "counter",
    "longhaul_worker_cancel_to_free_seconds": "histogram",
    "longhaul_worker_links_fenced_total": "counter",
}
DECODE_FAMILIES = {
    "longhaul_worker_transfer_seconds": "histogram",
    "longhaul_worker_first_token_part_seconds": "histogram",
    "longhaul_worker_local_prefills_total": "counter",
}
UCX_FAMILIES = {"longhaul_worker_stale_messages_total": "counter", "longhaul_worker_link_bandwidth_bytes_per_second": "gauge"}
ROUTER_FAMILIES = {
    "longhaul_build_info": "gauge",
    "longhaul_http_requests_total": "counter",
    "longhaul_requests_total": "counter",
    "longhaul_ttft_seconds": "histogram",
    "longhaul_ttft_part_seconds": "histogram",
    "longhaul_inter_token_seconds": "histogram",
    "longhaul_kv_bytes_total": "counter",
    "longhaul_workers": "gauge",
}
# Gauges that count things have no unit.
COUNTS = {"kv_blocks", "requests_running", "requests_queued", "requests_in_flight", "workers", "connections", "info"}


class Scrape:
    """A page of /metrics, held to the text format's rules while it is read."""

    def __init__(self, address):
        status, text = cluster.get(address, "/metrics")
        assert status == 200, text
        self.types, self.samples = {}, []
        helped = set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, words = line[len("# HELP "):].split(" ", 1)
                assert words and name not in helped, line
                helped.add(name)
            elif line.startswith("# TYPE "):
                name, kind = line[len("# TYPE "):].split(" ")
                assert name in helped and name not in self.types, line
                self.types[name] = kind
            elif line:
                match = SAMPLE.fullmatch(line)
                assert match, line
                labels = dict(LABEL.findall(match["labels"] or ""))
                assert math.isfinite(float(match["value"])), line
                self.samples.append((match["name"], labels, float(match["value"])))
        keys = [(name, *sorted(labels.items())) for name, labels, _ in self.samples]
        assert len(keys) == len(set(keys)), "a sample appears twice"

    def sum(self, name, **labels):
        return sum(
            value for found, has, value in self.samples
            if found == name and all(has.get(key) == wanted for key, wanted in labels.items())
        )


def ask(instance, prompt):
    body = {"model": cluster.model_name(instance), "prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": False}
    return api_client.ask(instance.http, "/v1/completions", body, 60)


def worker_addresses(instance):
    """Where the workers' metrics are: the standalone shows its own beside the router's."""
    return [p.http for p in instance.processes if p.role in ("prefill", "decode")] or [instance.http]


def at_rest(instance):
    """Scrapes of the workers once none has a live block."""
    deadline = time.monotonic() + REST_SECONDS
    while True:
        scrapes = [Scrape(address) for address in worker_addresses(instance)]
        live = sum(scrape.sum("longhaul_worker_kv_blocks", state="live") for scrape in scrapes)
        if live == 0:
            return scrapes
        assert time.monotonic() < deadline, f"{live} blocks are live though nobody asks"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def served(server):
    """The server, after a prompt that crossed the wire."""
    assert ask(server, LONG_PROMPT + server.name).outcome()
    return server


def test_every_family_has_its_type(served):
    standalone = len(worker_addresses(served)) == 1
    router = Scrape(served.http)
    assert ROUTER_FAMILIES.items() <= router.types.items()
    scrapes = at_rest(served)
    for scrape in scrapes:
        assert WORKER_FAMILIES.items() <= scrape.types.items()
        if not standalone:
            assert UCX_FAMILIES.items() <= scrape.types.items()
    # Only a decode worker that has served has these.
    decode = [scrape for scrape in scrapes if scrape.sum("longhaul_worker_transfers_total", role="decode", outcome="ok")]
    assert decode
    assert all(DECODE_FAMILIES.items() <= scrape.types.items() for scrape in decode)


def test_names_say_their_units(served):
    for address in {served.http, *worker_addresses(served)}:
        for name, kind in Scrape(address).types.items():
            assert name.startswith("longhaul_"), name
            assert name.endswith("_total") == (kind == "counter"), name
            assert not re.search(r"_(ms|us|millis|micros|kb|mb|gb|kib|mib)(_|$)", name), name
            if kind == "histogram":
                assert name.endswith(("_seconds", "_bytes")), name
            if kind == "gauge" and not name.endswith(("_seconds", "_seconds_max", "_bytes", "_bytes_per_second")):
                assert any(name.endswith(f"_{count}") for count in COUNTS), name


def test_what_one_side_sends_the_other_receives_and_no_block_stays_live(served):
    before = at_rest(served)
    reply = ask(served, "Once more, and different. " + LONG_PROMPT + served.name)
    kv_bytes = int(reply.headers["x-longhaul-kv-bytes"])
    assert kv_bytes > 1_000_000
    # The counts follow within a period of the feeds.
    deadline = time.monotonic() + REST_SECONDS
    while True:
        after = at_rest(served)

        def grown(name, **labels):
            return sum(s.sum(name, **labels) for s in after) - sum(s.sum(name, **labels) for s in before)

        sent = grown("longhaul_worker_transfer_bytes_total", direction="sent")
        received = grown("longhaul_worker_transfer_bytes_total", direction="received")
        if sent == received == kv_bytes:
            break
        assert time.monotonic() < deadline, f"sent {sent}, received {received}, the reply says {kv_bytes}"
        time.sleep(0.05)
    assert grown("longhaul_worker_transfers_total", outcome="ok") == 2  # both ends count it
    assert grown("longhaul_worker_transfers_total", outcome="failed") == 0
    assert grown("longhaul_worker_tokens_total", kind="output") == 8
    for scrape in after:
        blocks = {state: scrape.sum("longhaul_worker_kv_blocks", state=state) for state in ("free", "live", "cached")}
        assert blocks["live"] == 0 and blocks["free"] + blocks["cached"] > 0, blocks


def test_the_router_names_the_wire(served):
    wire = "in-process" if len(worker_addresses(served)) == 1 else "ucx"
    assert Scrape(served.http).sum("longhaul_kv_bytes_total", transport=wire) > 1_000_000
