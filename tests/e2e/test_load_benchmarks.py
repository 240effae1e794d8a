"""The benchmarks of layouts run: a few seconds each, on a small random model, for what they print and not for its figures."""

import json
import subprocess
import sys

import pytest

from tools.launcher import build, paths

BENCH = paths.ROOT / "tools" / "bench"


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([sys.executable, BENCH / "random_model.py", folder, "--shape", "tiny", "--context", "8000"], check=True)
    return folder


def run(tool, tiny_model, tmp_path, *arguments):
    """Its figures."""
    report = tmp_path / "figures.json"
    command = [sys.executable, BENCH / tool, "--model", tiny_model, "--bin", build.binary("longhaul_decode").parent,
               "--backend", "cpu", "--json", report, *arguments]
    process = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode in (0, 1), process.stderr  # 1: a bar was missed, as it may be here
    return json.loads(report.read_text())


def test_steady_streams(tiny_model, tmp_path):
    figures = run("steady_streams.py", tiny_model, tmp_path, "--streams", 3, "--stream_tokens", 32, "--stream_output", 7900,
                  "--lengths", 1500, "--repeats", 2, "--quiet_seconds", 0.3, "--probe_tokens", 32)
    assert [layout["layout"] for layout in figures] == ["disaggregated", "colocated"]
    for layout in figures:
        (row,) = layout["lengths"]
        assert row["alone"]["tokens"] > 100
        assert row["beside"]["tokens"] > 10
        assert 0 < row["alone"]["p50_ms"] <= row["alone"]["p99_ms"] <= row["alone"]["max_ms"]
        assert len(row["ttft_ms"]) == 2


@pytest.mark.parametrize("mix", ["mooncake", "azure"])
def test_goodput(tiny_model, tmp_path, mix):
    figures = run("goodput.py", tiny_model, tmp_path, "--mix", mix, "--rates", "4", "--duration", 3, "--warmup", 0.5, "--drain", 5,
                  "--length_scale", 0.02, "--output_scale", 0.1, "--time_scale", 10)
    assert [result["layout"] for result in figures["results"]] == ["disaggregated", "two-colocated"]
    for result in figures["results"]:
        (step,) = result["steps"]
        assert step["requests"] >= 3
        assert step["errors"] == []
        assert step["token_s"][0] > 0
        assert all(seconds > 0 for _, seconds in result["alone"])
