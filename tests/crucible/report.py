"""What a run says at its end: a page for people, and the verdict as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.crucible.checker import INVARIANTS
from tests.crucible.figures import AIMS, Effect, counts, effects, latencies
from tests.crucible.trial import Trial

VIOLATIONS_SHOWN = 25
NOT_CHECKED = "I13 (metrics agree with the journals) is not checked: there are no metrics yet."


def write(trials: Sequence[Trial]) -> str:
    """The page, in Markdown."""
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(trial.seed for trial in trials))
    verdict = "**Nothing was violated.**" if not _all(trials) else "**Invariants were violated.**"
    lines = ["# The crucible", "", f"Seed {seeds}. {verdict}", ""]
    for trial in trials:
        lines += _trial(trial)
    lines += ["## Left out", "", f"* {NOT_CHECKED}"]
    return "\n".join([*lines, ""])


def as_json(trials: Sequence[Trial]) -> dict[str, Any]:
    """The verdict."""
    return {
        "violations": len(_all(trials)),
        "trials": [
            {
                "profile": trial.profile.name,
                "database": trial.database,
                "seed": trial.seed,
                "invariants": dict(Counter(one.invariant for one in trial.violations)),
                "examples": [str(one) for one in trial.violations[:VIOLATIONS_SHOWN]],
                "counts": counts(trial.evidence),
            }
            for trial in trials
        ],
    }


def _all(trials: Iterable[Trial]) -> list[object]:
    return [violation for trial in trials for violation in trial.violations]


def _trial(trial: Trial) -> Iterator[str]:
    profile, evidence = trial.profile, trial.evidence
    seconds = evidence.ended - evidence.began
    yield f"## {profile.name} on {trial.database}"
    yield ""
    yield (
        f"{profile.users} users, {profile.per_second:g} messages/s for {seconds:.0f} s, "
        f"{profile.masters} master(s), {len(evidence.faults)} faults. "
        f"![Timeline](timeline-{trial.database}.svg)"
    )
    yield ""
    yield from _table(("what", "how often"), counts(evidence).items())
    yield from _invariants(trial)
    yield from _faults(effects(evidence, trial.violations))
    yield from _bus(trial)


def _invariants(trial: Trial) -> Iterator[str]:
    found = Counter(one.invariant for one in trial.violations)
    titles = {
        name: " ".join((invariant.__name__).split("_")) for name, invariant in INVARIANTS.items()
    }
    rows = [(f"{name} {title}", found[name]) for name, title in titles.items()]
    yield from _table(("invariant", "violated"), rows)
    for violation in trial.violations[:VIOLATIONS_SHOWN]:
        yield f"* {violation}"
    if trial.violations:
        hidden = len(trial.violations) - VIOLATIONS_SHOWN
        yield f"* and {hidden} more" if hidden > 0 else ""
        yield ""


def _faults(found: Sequence[Effect]) -> Iterator[str]:
    titles = (
        *("fault", "injected", "accepted meanwhile", "lost", "duplicated"),
        *("disconnected", "first ack, worst", "all back, worst", "aim for the first ack"),
    )
    names = sorted({effect.fault.name for effect in found})
    yield from _table(titles, [_fault(name, found) for name in names])


def _fault(name: str, found: Sequence[Effect]) -> tuple[object, ...]:
    mine = [effect for effect in found if effect.fault.name == name]
    first_ack = max((e.first_ack for e in mine if e.first_ack is not None), default=None)
    return (
        name,
        len(mine),
        sum(effect.accepted for effect in mine),
        sum(effect.lost for effect in mine),
        sum(effect.duplicated for effect in mine),
        sum(effect.disconnected for effect in mine),
        _seconds(first_ack),
        _seconds(max((e.back for e in mine if e.back is not None), default=None)),
        _aim(name, first_ack),
    )


def _aim(name: str, first_ack: float | None) -> str:
    aim = AIMS.get(name)
    if aim is None or first_ack is None:
        return ""
    return f"≤ {aim:g} s, {'reached' if first_ack <= aim else 'missed'}"


def _bus(trial: Trial) -> Iterator[str]:
    found = latencies(trial.evidence)
    rows = [
        ("usual", _seconds(found.usual_p50), _seconds(found.usual_p99)),
        ("bus away", _seconds(found.without_bus_p50), _seconds(found.without_bus_p99)),
    ]
    yield from _table(("time to ack", "p50", "p99"), rows)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('---' for _ in titles)}|"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
    yield ""
