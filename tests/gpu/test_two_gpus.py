"""Workers on two GPUs of one host: their KV over UCX and over NCCL, their models cut into two ranks, and one of them killed while
KV crosses. What needs no GPU runs between CPU workers, too. served_answers.py says what must be equal, and how nearly.
"""

import random
import time
from dataclasses import dataclass

import pytest

import served_answers
from served_answers import MEMORY, WORDS, hold, hold_to_the_bit, reference_of

from disturbance import Request, kill, of_role, wait_until_nothing_is_held, wait_until_ready  # noqa: E402
from phases import BLOCK_TOKENS, FINE, Watch, ask  # noqa: E402
from tools.launcher import cluster  # noqa: E402

PATIENT = ("--wait_limit_s=600",)
CPU_TOKENS_MAX = 700  # longer prompts take long there
NEXT_TOKENS = 300


@dataclass(frozen=True)
class Place:
    """Where prefill and decode workers are, and what is sent there to be disturbed."""

    worker_flags: tuple
    prefill_flags: tuple = ()
    decode_flags: tuple = ()
    both_flags: tuple = ()  # of a worker that has all of the place
    # So many and so long that KV crosses for seconds.
    prompts: int = 24
    prompt_tokens: int = 7000
    step_tokens: int = 16
    next_seconds: float = 3.0  # a kill until the survivors have answered somebody new

    @property
    def on_gpus(self):
        return bool(self.both_flags)


def _two_gpus(kv_transport):
    return Place(("--backend=cuda", MEMORY, f"--kv_transport={kv_transport}"), ("--device=0",), ("--device=1",), ("--device=0,1",))


PLACES = {
    "cpu": Place(("--backend=cpu",), prompts=3, prompt_tokens=2000, step_tokens=32, next_seconds=60),
    "ucx": _two_gpus("ucx"),
    "nccl": _two_gpus("nccl"),
}


def _place(request):
    place = PLACES[request.param]
    if place.on_gpus:
        request.getfixturevalue("two_gpus")
    return place


@pytest.fixture(scope="module", params=PLACES)
def place(request, subject):
    if request.param == "cpu" and subject[0] != "noise":
        pytest.skip("tests/e2e has the default model on the CPU")
    return _place(request)


@pytest.fixture(scope="module", params=["cpu", "ucx"])
def ranks_place(request, subject):
    """NCCL's KV joins no two ranks on one GPU, so what is cut in two hands off over UCX."""
    if subject[0] != "noise":
        pytest.skip("the default model has three key/value heads")
    return _place(request)


@pytest.fixture(scope="module")
def ask_at(answers):
    """ask_at(place, prefill=1, decode=1, ...): the answers there, to prompts that the place can compute."""
    def asked(place, **shape):
        shape = {"prefill": 1, "decode": 1, "worker_flags": place.worker_flags, "prefill_flags": place.prefill_flags,
                 "decode_flags": place.decode_flags, "router_flags": PATIENT} | shape
        return answers(lambda prompt: place.on_gpus or len(prompt.content) <= CPU_TOKENS_MAX, **shape)

    return asked


@pytest.fixture(scope="module")
def one_process(ask_at):
    """one_process(place, flags): the answers of a standalone there; asked once."""
    kept = {}

    def outcome(place, *flags):
        # It hands KV off within itself.
        own = [flag for flag in place.worker_flags if not flag.startswith("--kv_transport")]
        key = (*own, *flags)
        if key not in kept:
            kept[key] = ask_at(place, standalone=True, worker_flags=key, router_flags=())
        return kept[key]

    return outcome


@pytest.mark.timeout(900)
def test_prefill_on_one_gpu_and_decode_on_the_other_equal_one_process_bit_for_bit(place, ask_at, one_process):
    hold_to_the_bit(ask_at(place), one_process(place))


@pytest.mark.timeout(900)
def test_one_process_over_both_gpus_equals_one_on_the_first_bit_for_bit(two_gpus, ask_at, one_process):
    place = PLACES["ucx"]
    hold_to_the_bit(one_process(place, "--decode_device=1"), one_process(place))


def wide(place):
    return (*place.both_flags, "--tensor_parallel=2")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("prefill, decode", [(2, 1), (1, 2)])
def test_unequal_widths_say_what_one_rank_says(ranks_place, ask_at, one_process, capsys, prefill, decode):
    place = ranks_place
    split = ask_at(place, prefill_flags=wide(place) if prefill == 2 else place.prefill_flags,
                   decode_flags=wide(place) if decode == 2 else place.decode_flags)
    alone = {name: reference_of(answer) for name, (answer, _) in one_process(place).items()}
    hold(f"noise of {prefill} and {decode} ranks beside one", alone, split, capsys)


@pytest.mark.timeout(900)
def test_two_ranks_say_what_one_says_and_equal_widths_are_equal_bit_for_bit(ranks_place, ask_at, one_process, capsys):
    place = ranks_place
    both = one_process(place, *wide(place))
    hold_to_the_bit(ask_at(place, prefill_flags=wide(place), decode_flags=wide(place)), both)
    alone = {name: reference_of(answer) for name, (answer, _) in one_process(place).items()}
    hold("noise of two ranks beside one", alone, both, capsys)


# ---- kill -9 while KV crosses

@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "noise"
    served_answers.write_noise(path)
    return path


@pytest.fixture(params=PLACES)
def kill_place(request):
    return _place(request)


@pytest.fixture
def fresh(noise, kill_place):
    """fresh(prefill, decode): a cluster that the test may ruin."""
    made = []

    def make(prefill, decode):
        place = kill_place
        steps = FINE | {"prefill_flags": (f"--chunk_tokens_max={place.step_tokens}",)}
        instance = cluster.start(cluster.Shape(
            str(noise), prefill=prefill, decode=decode, port=0, router_flags=PATIENT,
            worker_flags=(*place.worker_flags, f"--block_tokens={BLOCK_TOKENS}"),
            prefill_flags=(*steps["prefill_flags"], *place.prefill_flags),
            decode_flags=(*steps["decode_flags"], *place.decode_flags)))
        made.append(instance)
        wait_until_ready(instance, prefill=prefill, decode=decode)
        return instance

    yield make
    for instance in made:
        instance.stop()


def random_prompts(count, tokens):
    chance = random.Random(count)
    return [[chance.randrange(3, WORDS) for _ in range(tokens)] for _ in range(count)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_worker_killed_while_kv_crosses_leaves_the_others_serving(fresh, kill_place, role, capsys):
    place = kill_place
    instance = fresh(prefill=2, decode=1) if role == "prefill" else fresh(prefill=1, decode=2)
    prompts = random_prompts(place.prompts, place.prompt_tokens)
    in_peace = [request.end().outcome() for request in
                [Request(instance, prompt, cache_salt="in peace") for prompt in prompts]]
    wait_until_nothing_is_held(instance)
    watch = Watch(instance, requests=place.prompts)
    requests = [Request(instance, prompt) for prompt in prompts]
    watch.carrying()
    victim = watch.prefill if role == "prefill" else watch.decode
    kill(victim)
    killed = time.monotonic()
    (somebody,) = random_prompts(1, NEXT_TOKENS)
    new = ask(instance, somebody)
    seconds = time.monotonic() - killed
    under_way = sum(request.under_way() for request in requests)
    with capsys.disabled():
        print(f"\n{victim.name} killed: the next request was served within {seconds:.2f} s, {under_way} of {len(requests)} others "
              "were still under way")
    assert new.headers["x-longhaul-path"] == "remote", new.headers
    assert seconds < place.next_seconds
    assert [request.end().outcome() for request in requests] == in_peace
    for process in of_role(instance, role):
        assert process.alive() == (process.name != victim.name), process.name
    wait_until_nothing_is_held(instance)
