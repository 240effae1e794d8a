"""What steady_streams counts, and what it misses the bar by."""

import pytest

import steady_streams


def test_gaps_are_those_that_ended_in_a_window():
    times = [[0.0, 1.0, 2.0, 4.0], [0.5, 2.5]]
    assert steady_streams.gaps(times, [(0.9, 1.1), (3.5, 4.5)]) == pytest.approx([1000, 2000])
    assert steady_streams.gaps(times, [(2.1, 3.0)]) == pytest.approx([2000])


def test_a_summary_has_the_worst_and_the_usual():
    found = steady_streams.summary([1.0] * 98 + [5.0, 9.0])
    assert (found["tokens"], found["p50_ms"], found["p99_ms"], found["max_ms"]) == (100, 1.0, 5.0, 9.0)
    assert found["mean_ms"] == pytest.approx(1.12)


@pytest.mark.parametrize("layout, devices, ratio, expected", [
    ("disaggregated", 2, 1.04, 0), ("disaggregated", 2, 1.06, 1), ("disaggregated", 1, 9, 0), ("colocated", 1, 9, 0)])
def test_the_bar_is_of_two_devices_apart(layout, devices, ratio, expected):
    figures = {"layout": layout, "devices": devices, "lengths": [{"tokens": 32768, "p99_ratio": ratio}]}
    assert len(steady_streams.missed([figures])) == expected
