from __future__ import annotations

import pytest

from benchmarks.results import Measurement, Results, Spread

OURS, THEIRS = ("load", "ours"), ("load", "theirs")


def results_of(**rates: list[float | None]) -> Results:
    """One run a round for each server; None is a run that failed."""
    results = Results()
    for server, values in rates.items():
        for number, rate in enumerate(values):
            figures = {} if rate is None else {"rate": rate}
            failure = "lost" if rate is None else None
            results.add(Measurement("load", server, number, figures, failure))
    return results


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the last round: that is no news about the servers.
    results = results_of(ours=[400.0, 400.0, 40.0], theirs=[100.0, 200.0, 10.0])
    assert results.ratio(OURS, THEIRS, "rate") == Spread(4.0, 2.0, 4.0)
    assert results.ratio(OURS, THEIRS, "rate", inverse=True) == Spread(0.25, 0.25, 0.5)


def test_a_run_that_failed_counts_for_nothing() -> None:
    results = results_of(ours=[400.0, None], theirs=[100.0, 1.0])
    assert results.ratio(OURS, THEIRS, "rate") == Spread(4.0, 4.0, 4.0)
    assert results.spread("load", "ours", "rate") == Spread(400.0, 400.0, 400.0)
    assert [run.failure for run in results.failures] == ["lost"]


def test_what_was_not_measured_has_no_figure() -> None:
    results = results_of(ours=[None], theirs=[100.0])
    assert results.spread("load", "ours", "rate") is None
    assert results.ratio(OURS, THEIRS, "rate") is None


def test_the_json_has_every_run_and_the_medians() -> None:
    written = results_of(ours=[1.0, 2.0, 9.0]).as_json()
    assert [run["figures"]["rate"] for run in written["runs"]] == [1.0, 2.0, 9.0]
    (medians,) = written["medians"]
    assert medians["rate"] == {"median": 2.0, "low": 1.0, "high": 9.0}
    assert medians["server"] == "ours"


@pytest.mark.parametrize("rounds", [1, 5])
def test_the_spread_contains_the_median(rounds: int) -> None:
    spread = results_of(ours=[float(n) for n in range(rounds)]).spread("load", "ours", "rate")
    assert spread is not None
    assert spread.low <= spread.median <= spread.high
