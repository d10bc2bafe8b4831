"""What was measured, and what follows from it: medians, spreads, and ratios of runs in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

Figures = dict[str, float]
TIMES = "\N{MULTIPLICATION SIGN}"


class Failed(Exception):
    """A run has no figures, because of what the text says."""


@dataclass(frozen=True)
class Measurement:
    """One run. A run that failed its check has no figures, and says why."""

    workload: str
    server: str
    round: int
    figures: Figures = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the smallest and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None of no values."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1]) if known else None


class Results:
    """All runs of one session."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []

    def add(self, measurement: Measurement) -> None:
        """Note one more run."""
        self.measurements.append(measurement)

    @property
    def failures(self) -> list[Measurement]:
        """The runs that have no figures."""
        return [each for each in self.measurements if each.failure is not None]

    def names(self) -> list[tuple[str, str]]:
        """Every pair of workload and server, in the order in which they came first."""
        return list(dict.fromkeys((each.workload, each.server) for each in self.measurements))

    def spread(self, workload: str, server: str, figure: str) -> Spread | None:
        """A figure over all rounds."""
        return Spread.of(self._by_round(workload, server, figure).values())

    def ratio(
        self, ours: tuple[str, str], theirs: tuple[str, str], figure: str, *, inverse: bool = False
    ) -> Spread | None:
        """A figure of ours over theirs, round by round: what both met in the same minutes.

        Each side is a workload and a server. `inverse` is theirs over ours.
        """
        above, below = self._by_round(*ours, figure), self._by_round(*theirs, figure)
        if inverse:
            above, below = below, above
        return Spread.of(above[n] / below[n] for n in above.keys() & below.keys() if below[n] > 0)

    def as_json(self) -> dict[str, Any]:
        """Every run, and the medians."""
        return {
            "runs": [asdict(each) for each in self.measurements],
            "medians": [
                {"workload": workload, "server": server, **self._medians(workload, server)}
                for workload, server in self.names()
            ],
        }

    def _medians(self, workload: str, server: str) -> dict[str, Any]:
        figures = {
            name: None
            for each in self.measurements
            if (each.workload, each.server) == (workload, server)
            for name in each.figures
        }
        spreads = {name: self.spread(workload, server, name) for name in figures}
        return {name: asdict(spread) for name, spread in spreads.items() if spread is not None}

    def _by_round(self, workload: str, server: str, figure: str) -> dict[int, float]:
        return {
            each.round: each.figures[figure]
            for each in self.measurements
            if (each.workload, each.server) == (workload, server) and figure in each.figures
        }
