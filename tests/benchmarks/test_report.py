from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks import picture, report
from benchmarks.results import Measurement, Results
from benchmarks.targets import TARGETS, Target, Verdict
from benchmarks.workloads import FASTIFY, FULL_LOAD, HISTORIES, OURS


def session(ours: float, theirs: float, workload: str = FULL_LOAD) -> Results:
    """A session in which both servers ran once."""
    results = Results()
    for server, value in ((OURS, ours), (FASTIFY, theirs)):
        figures = {"rate": value, "delivered_p99": 10_000 / value, "cpu": value}
        results.add(Measurement(workload, server, 1, figures))
    return results


def target(title: str) -> Target:
    """The one target whose title begins like this."""
    (found,) = (each for each in TARGETS if each.title.startswith(title))
    return found


@pytest.mark.parametrize(
    ("ours", "verdict"), [(700, "aim met"), (400, "met"), (399, "NOT MET"), (699, "met")]
)
def test_more_messages_are_judged_against_must_and_aim(ours: float, verdict: Verdict) -> None:
    of_rate = target("messages/s, w=8, against Fastify")
    assert of_rate.verdict(of_rate.measure(session(ours, 100))) == verdict


@pytest.mark.parametrize(
    ("ours", "verdict"), [(400, "aim met"), (100, "met"), (99, "NOT MET"), (399, "met")]
)
def test_less_time_to_delivery_is_better(ours: float, verdict: Verdict) -> None:
    of_latency = target("delivery p99, w=8")
    assert of_latency.verdict(of_latency.measure(session(ours, 100))) == verdict


@pytest.mark.parametrize(
    ("grown", "verdict"), [(0.9, "aim met"), (1.04, "aim met"), (1.19, "met"), (1.21, "NOT MET")]
)
def test_growth_is_what_the_last_costs_beyond_the_first(grown: float, verdict: Verdict) -> None:
    results = Results()
    for stored, cpu in zip(HISTORIES, (2.0, 2.0 * grown), strict=True):
        results.add(Measurement(f"history-{stored}", OURS, 1, {"cpu": cpu}))
    of_growth = target("growth of processor time per message, 10³")
    assert of_growth.verdict(of_growth.measure(results)) == verdict


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {each.verdict(each.measure(Results())) for each in TARGETS} == {"not measured"}


def test_a_failed_run_is_printed_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    results = session(100, 100)
    results.add(Measurement(FULL_LOAD, OURS, 2, {}, "1 sent, 0 stored"))
    report.print_failures(results)
    printed = capsys.readouterr().out
    assert f"!!! round 2, {FULL_LOAD}, {OURS}: 1 sent, 0 stored" in printed


def test_the_table_has_a_row_for_each_server(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_tables(session(1500, 500), {OURS: "Ours", FASTIFY: "Fastify"})
    rows = capsys.readouterr().out.splitlines()
    assert any(row.split()[:3] == ["Ours", "1,500", "3"] for row in rows)
    assert any(row.split()[:2] == ["Fastify", "500"] for row in rows)


def test_the_picture_is_an_svg_with_a_bar_for_each_ratio() -> None:
    drawn = ET.fromstring(picture.draw(session(700, 100), "two cores & a disk"))
    bars = [each for each in drawn.iter() if each.get("class") == "bar"]
    texts = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert len(bars) == 2  # messages a second, and the time to delivery
    assert texts.count("7 \N{MULTIPLICATION SIGN}") == 2
    assert "two cores & a disk" in texts
