"""The first failures: clients that leave, workers that die, stop or come back, in each phase of a request.

Every test ends with the same two demands: the answer, where one is owed, is the undisturbed one; and no process that
lives holds a KV block, which its metrics say.
"""

import signal

import pytest

from disturbance import (
    Request, hung, kill, metric, of_role, queued, restart, running, wait_for, wait_until_nothing_is_held, wait_until_ready,
)
from phases import FINE, SHORT, Watch, ask, long_prompt, question_for, request_for

ONE_PROMPT = "--kv_bytes=75000000"  # memory for one long prompt: the next one waits for it
PHASES = ("computing", "carrying", "decoding")


@pytest.fixture(scope="module")
def pair(make_server):
    """One worker of each kind: whoever is waited for is known."""
    return make_server(prefill=1, decode=1, **FINE)


@pytest.fixture(scope="module")
def in_peace(pair):
    """in_peace(prompt=..., ...): how a request ends that nothing disturbs; asked once."""
    kept = {}

    def outcome(**question):
        key = repr(sorted(question.items()))
        if key not in kept:
            kept[key] = ask(pair, **question, cache_salt="in peace").outcome()
        return kept[key]

    return outcome


@pytest.fixture
def fresh(make_server):
    """fresh(prefill, decode, ...): a cluster that the test may ruin."""
    made = []

    def make(prefill, decode, **shape):
        instance = make_server(prefill=prefill, decode=decode, **FINE | shape)
        made.append(instance)
        wait_until_ready(instance, prefill=prefill, decode=decode)
        return instance

    yield make
    for instance in made:
        instance.stop()


# ---- the client is gone

@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_takes_its_work_with_it(pair, phase):
    watch = Watch(pair)
    (decode,) = of_role(pair, "decode")
    cancelled = metric(decode, "longhaul_worker_requests_total", outcome="cancelled")
    request = request_for(pair, phase, f"one who left while {phase}")
    watch.until(phase)
    assert request.under_way()
    request.leave()
    wait_until_nothing_is_held(pair)
    assert metric(decode, "longhaul_worker_requests_total", outcome="cancelled") == cancelled + 1
    assert metric(decode, "longhaul_worker_cancel_to_free_seconds_max") > 0
    assert len(ask(pair, SHORT).tokens) == 8


def test_a_client_that_leaves_while_it_waits_for_a_prefill_worker(fresh):
    one = fresh(1, 1, prefill_flags=(*FINE["prefill_flags"], ONE_PROMPT))
    (prefill,) = of_role(one, "prefill")
    first = Request(one, long_prompt("the first"))
    wait_for("the first is computed", lambda: running(prefill))
    second = Request(one, long_prompt("the second"))
    wait_for("the second waits", lambda: queued(prefill) == 1)
    second.leave()
    wait_for("nobody waits", lambda: queued(prefill) == 0)
    assert first.under_way() or first.whole
    assert len(first.end().tokens) == 8 and first.whole
    wait_until_nothing_is_held(one)


def test_a_client_that_leaves_while_it_waits_for_a_decode_slot(fresh):
    one = fresh(1, 1, decode_flags=(*FINE["decode_flags"], "--batch_sequences_max=1"))
    (decode,) = of_role(one, "decode")
    first = Request(one, SHORT, max_tokens=300, ignore_eos=True)
    wait_for("the first speaks", lambda: running(decode))
    second = Request(one, "Another question")
    wait_for("the second waits", lambda: queued(decode) == 1)
    second.leave()
    wait_for("nobody waits", lambda: queued(decode) == 0)
    assert len(first.end().tokens) == 300 and second.tokens == []
    wait_until_nothing_is_held(one)


# ---- kill -9

@pytest.mark.parametrize("phase", ["computing", "carrying"])
def test_a_prefill_worker_killed_is_replaced_by_another(fresh, in_peace, phase):
    two = fresh(2, 1)
    watch = Watch(two)
    request = request_for(two, phase, "an unlucky one")
    watch.until(phase)
    kill(watch.prefill)
    outcome = request.end().outcome()
    assert request.headers["x-longhaul-prefill"] != watch.prefill.name, request.headers
    assert outcome == in_peace(**question_for(phase, "an unlucky one"))
    wait_until_nothing_is_held(two)


@pytest.mark.parametrize("phase", PHASES)
def test_a_decode_worker_killed_is_replaced_and_the_client_sees_nothing(fresh, in_peace, phase):
    two = fresh(1, 2)
    watch = Watch(two)
    request = request_for(two, phase, "an unlucky one")
    watch.until(phase)
    assert request.under_way()
    kill(watch.decode)
    outcome = request.end().outcome()
    assert outcome == in_peace(**question_for(phase, "an unlucky one"))
    wait_until_nothing_is_held(two)


def test_a_sampled_stream_goes_on_elsewhere_as_it_would_have(fresh, in_peace):
    """Sampling goes by seed and position, so another worker draws the same tokens."""
    two = fresh(1, 2)
    options = {"max_tokens": 300, "ignore_eos": True, "temperature": 0.9, "top_p": 0.95, "seed": 7}
    watch = Watch(two)
    request = Request(two, SHORT, **options)
    watch.decoding()
    kill(watch.decode)
    assert request.end().outcome() == in_peace(prompt=SHORT, **options)
    wait_until_nothing_is_held(two)


def test_who_waited_in_a_decode_worker_that_is_killed_is_served_elsewhere(fresh, in_peace):
    two = fresh(1, 2, decode_flags=(*FINE["decode_flags"], "--batch_sequences_max=1"))
    question = question_for("decoding", "")
    speaking = [Request(two, **question), Request(two, **question)]
    for process in of_role(two, "decode"):
        wait_for(f"{process.name} speaks", lambda process=process: running(process))
    waiting = Request(two, SHORT)
    full = wait_for("one waits", lambda: next((process for process in of_role(two, "decode") if queued(process)), None))
    kill(full)
    assert waiting.end().outcome() == in_peace(prompt=SHORT)
    for request in speaking:
        assert request.end().outcome() == in_peace(**question)
    wait_until_nothing_is_held(two)


def test_who_waited_in_a_prefill_worker_that_is_killed_is_served_all_the_same(fresh, in_peace):
    one = fresh(1, 1, prefill_flags=(*FINE["prefill_flags"], ONE_PROMPT))
    (prefill,) = of_role(one, "prefill")
    names = ("an unlucky one", "the next in line")
    requests = [Request(one, long_prompt(names[0]))]
    wait_for("the first is computed", lambda: running(prefill))
    requests.append(Request(one, long_prompt(names[1])))
    wait_for("the second waits", lambda: queued(prefill) == 1)
    kill(prefill)
    for name, request in zip(names, requests):
        assert request.end().outcome() == in_peace(prompt=long_prompt(name))
    wait_until_nothing_is_held(one)


@pytest.mark.parametrize("phase", PHASES)
def test_a_router_killed_leaves_no_block_behind(fresh, phase):
    one = fresh(1, 1)
    watch = Watch(one)
    request = request_for(one, phase, "an orphan")
    watch.until(phase)
    kill(of_role(one, "router")[0])
    assert not request.end().whole
    wait_until_nothing_is_held(one)


# ---- stopped, not dead

def test_a_prefill_worker_that_stops_answering_is_given_up(fresh, in_peace):
    two = fresh(2, 1)
    watch = Watch(two)
    request = request_for(two, "carrying", "an unlucky one")
    watch.carrying()
    watch.prefill.signal(signal.SIGSTOP)
    try:
        outcome = request.end().outcome()
        assert request.headers["x-longhaul-prefill"] != watch.prefill.name, request.headers
    finally:
        watch.prefill.signal(signal.SIGCONT)
    assert outcome == in_peace(**question_for("carrying", "an unlucky one"))
    wait_until_nothing_is_held(two)


def test_a_prefill_worker_whose_loop_hangs_is_given_up_though_its_connections_live(fresh, in_peace):
    two = fresh(2, 1, decode_flags=(*FINE["decode_flags"], "--heartbeat_ms=500"))
    watch = Watch(two)
    request = request_for(two, "computing", "an unlucky one")
    watch.computing()
    with hung(watch.prefill, "loop"):
        outcome = request.end().outcome()
        assert request.headers["x-longhaul-prefill"] != watch.prefill.name, request.headers
    assert outcome == in_peace(**question_for("computing", "an unlucky one"))
    wait_until_nothing_is_held(two)


def test_a_decode_worker_that_stops_answering_is_given_up(fresh, in_peace):
    two = fresh(1, 2)
    watch = Watch(two)
    request = request_for(two, "decoding", "")
    watch.decoding()
    watch.decode.signal(signal.SIGSTOP)
    try:
        outcome = request.end().outcome()
    finally:
        watch.decode.signal(signal.SIGCONT)
    assert outcome == in_peace(**question_for("decoding", ""))
    wait_until_nothing_is_held(two)


# ---- back on the same port

@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_worker_restarted_on_its_port_is_used_again(fresh, in_peace, role):
    one = fresh(1, 1)
    first = ask(one, long_prompt("an unlucky one"))
    (worker,) = of_role(one, role)
    restart(one, worker)
    again = ask(one, long_prompt("an unlucky one"), cache_salt="after the restart")
    assert again.outcome() == first.outcome() == in_peace(prompt=long_prompt("an unlucky one"))
    assert again.headers["x-longhaul-path"] == "remote" and again.headers["x-longhaul-prefill"] == "prefill-0"
    wait_until_nothing_is_held(one)


# ---- nobody is left, no room, too long

def test_without_a_decode_worker_the_answer_is_503_with_retry_after(fresh):
    one = fresh(1, 1)
    kill(of_role(one, "decode")[0])
    request = Request(one, SHORT).end()
    assert request.status == 503 and int(request.headers["retry-after"]) >= 1, vars(request)
    assert "decode" in request.error["message"]


def test_when_the_last_decode_worker_dies_the_stream_ends_with_an_error(fresh):
    one = fresh(1, 1)
    watch = Watch(one)
    request = request_for(one, "decoding", "")
    watch.decoding()
    kill(watch.decode)
    request.end()
    assert request.status == 200 and request.tokens and request.error is not None, vars(request)


def test_without_a_prefill_worker_the_decode_worker_computes(fresh, in_peace):
    one = fresh(1, 1)
    kill(of_role(one, "prefill")[0])
    alone = ask(one, long_prompt("an unlucky one"))
    assert alone.outcome() == in_peace(prompt=long_prompt("an unlucky one"))
    assert alone.headers["x-longhaul-path"] == "local"
    wait_until_nothing_is_held(one)


def test_without_a_prefill_worker_and_a_fallback_the_answer_is_503(fresh):
    one = fresh(1, 1, router_flags=("--nolocal_prefill",), decode_flags=(*FINE["decode_flags"], "--nolocal_fallback"))
    kill(of_role(one, "prefill")[0])
    request = Request(one, long_prompt("nobody")).end()
    assert request.status == 503 and int(request.headers["retry-after"]) >= 1, vars(request)
    assert "prefill" in request.error["message"]
    wait_until_nothing_is_held(one)


def test_a_full_router_says_429_with_retry_after(fresh):
    one = fresh(1, 1, router_flags=("--requests_max=1",))
    watch = Watch(one)
    first = request_for(one, "decoding", "")
    watch.decoding()
    second = Request(one, "One too many").end()
    assert second.status == 429 and int(second.headers["retry-after"]) >= 1, vars(second)
    assert "1" in second.error["message"]
    first.leave()
    wait_until_nothing_is_held(one)
    assert len(ask(one, SHORT).tokens) == 8


def test_a_wait_over_the_limit_is_refused_with_429(fresh):
    one = fresh(1, 1, router_flags=("--wait_limit_s=0.001",))
    watch = Watch(one)
    first = request_for(one, "computing", "the first")
    watch.computing()
    second = Request(one, long_prompt("one who would wait")).end()
    assert second.status == 429 and int(second.headers["retry-after"]) >= 1, vars(second)
    assert first.end().whole
    wait_until_nothing_is_held(one)


@pytest.mark.parametrize("tokens, output, room", [(9000, 1, 8192), (4000, 4500, 8192)])
def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(pair, tokens, output, room):
    request = Request(pair, [1000 + i % 1000 for i in range(tokens)], max_tokens=output).end()
    assert request.status == 400 and request.error["code"] == "context_length_exceeded", vars(request)
    assert str(tokens) in request.error["message"] and str(room) in request.error["message"]


def test_a_prompt_too_long_for_the_workers_memory_is_refused_with_its_size(fresh):
    # 1,600 tokens in the memory, fewer than the model's context.
    small = fresh(1, 1, decode_flags=(*FINE["decode_flags"], "--kv_bytes=36864000"))
    request = Request(small, [1000 + i % 1000 for i in range(2000)], max_tokens=4).end()
    assert request.status == 400 and request.error["code"] == "context_length_exceeded", vars(request)
    assert "2000" in request.error["message"] and "1600" in request.error["message"]
    assert len(ask(small, SHORT).tokens) == 8
