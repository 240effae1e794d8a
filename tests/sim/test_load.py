"""Load in simulated time: the same every time, the cost model's times, and what layouts and spilling are known to change."""

import json
import pathlib
import subprocess
import sys

import pytest

from tools.launcher import build, paths

# c0 c1 c2 d0 d1 d2 in us: a prompt of 1,000 tokens takes 10 ms, a step 4.
COST = "0.001,10,0.0000001,4000,1,0.0001"


def answers(lines, *flags):
    """[(first us, last us, tokens, whole, code)] of requests "due_us prompt_tokens output_tokens names"."""
    process = subprocess.run([build.binary("longhaul_load_sim"), f"--cost={COST}", "--name_tokens=1000", *flags],
                             input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=60, check=True)
    return [tuple(map(int, line.split())) for line in process.stdout.splitlines()]


@pytest.mark.parametrize("flags", [("--prefill=1", "--decode=1"), ("--prefill=0", "--decode=1")])
def test_a_request_alone_takes_the_times_of_its_cost(flags):
    ((first_us, last_us, tokens, whole, code),) = answers(["500000 3000 11 1 2 3"], *flags)
    assert 500_000 + 30_000 < first_us < 500_000 + 30_000 + 15_000  # the prompt, and a step or two
    assert last_us - first_us == pytest.approx(10 * 4_000, rel=0.1)
    assert (tokens, whole, code) == (11, 1, 0)


def test_streams_on_a_decode_worker_of_their_own_do_not_feel_a_prompt():
    requests = ["0 10 500 1", f"1000000 100000 1 {' '.join(map(str, range(10, 110)))}"]
    (_, apart_us, *_), _ = answers(requests, "--prefill=1", "--decode=1")
    (_, together_us, *_), _ = answers(requests, "--prefill=0", "--decode=1", "--step_target_ms=20")
    assert apart_us == pytest.approx(500 * 4_000, rel=0.02)
    # A second of prompt in chunks of 16 ms: as many steps of 20 instead of 4.
    assert together_us == pytest.approx(apart_us + 1_000_000, rel=0.1)


def test_a_short_prompt_passes_long_ones_that_wait():
    long_ones = [f"{i} 100000 1 {' '.join(map(str, range(100 * i, 100 * i + 100)))}" for i in range(1, 9)]
    *_, (first_us, _, _, whole, code) = answers([*long_ones, "500000 1000 2 5000"], "--wait_limit_s=5")
    assert (whole, code) == (1, 0)
    assert first_us - 500_000 < 300_000  # they have eight seconds to go


def test_prompts_spill_to_a_decode_worker_that_has_time():
    # 0.2 s of prompt every 0.05 s.
    requests = [f"{50000 * i} 20000 1 {' '.join(map(str, range(20 * i, 20 * i + 20)))}" for i in range(1, 21)]
    stay = answers(requests)
    spill = answers(requests, "--spill_slowdown=2")
    assert max(row[1] for row in spill) < 0.7 * max(row[1] for row in stay)


def test_steps_are_the_same_again(tmp_path):
    def goodput(name):
        report = tmp_path / name
        subprocess.run([sys.executable, paths.ROOT / "tools" / "bench" / "goodput.py", "--simulate", "--bin",
                        pathlib.Path(build.binary("longhaul_load_sim")).parent, "--mix", "azure", "--duration", "5", "--warmup", "1",
                        "--rates", "15,30", "--json", report], capture_output=True, timeout=120, check=False)
        return json.loads(report.read_text())

    first = goodput("first.json")
    assert first == goodput("second.json")
    assert [result["layout"] for result in first["results"]] == ["disaggregated", "two-colocated"]
    assert all(result["goodput"] >= 15 for result in first["results"])
