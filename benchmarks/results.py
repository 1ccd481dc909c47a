"""The numbers of one run, and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchserve_models.loadgen import Summary


@dataclass
class Row:
    """One system. `problem` says why there are no numbers; `open` holds (offered/s, share of capacity, what came)."""

    name: str
    title: str
    peer: bool
    problem: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    start_seconds: float = 0.0
    idle_cores: float = 0.0
    sleeps: bool = False
    closed: dict[int, Summary] = field(default_factory=dict)
    spread: dict[int, float] = field(default_factory=dict)
    open: list[tuple[float, float, Summary]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def capacity(self) -> float:
        """The most requests/s of any closed loop; 0 without one."""
        return max((summary.requests_per_second for summary in self.closed.values()), default=0.0)

    def at(self, concurrency: int) -> Summary | None:
        return self.closed.get(concurrency)

    def offered(self, share: float) -> Summary | None:
        """The open loop at that share of its capacity."""
        return next((summary for _, at, summary in self.open if abs(at - share) < 0.01), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title.replace("*", ""),
            "peer": self.peer,
            "problem": self.problem,
            "facts": self.facts,
            "start_seconds": round(self.start_seconds, 1),
            "idle_cores": round(self.idle_cores, 3),
            "slept_while_others_were_measured": self.sleeps,
            "memory_mb": self.memory,
            "closed": {
                str(key): {**summary.as_json(), "spread_of_rounds": self.spread.get(key, 0.0)}
                for key, summary in self.closed.items()
            },
            "open": [
                {"offered_per_second": rate, "share_of_capacity": share, **summary.as_json()}
                for rate, share, summary in self.open
            ],
        }


@dataclass(frozen=True)
class Results:
    """`concurrency` are the closed loops that were run, ascending."""

    rows: Mapping[str, Row]
    concurrency: tuple[int, ...]

    @property
    def peers(self) -> list[Row]:
        return [row for row in self.rows.values() if row.peer]

    def at(self, name: str, concurrency: int) -> Summary | None:
        """None where that was not measured."""
        row = self.rows.get(name)
        return row.at(concurrency) if row else None
