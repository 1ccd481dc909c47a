"""The results of one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchserve_models.loadgen import LoadStatistics


@dataclass
class Row:
    """A row of the results: one system under the requests of one protocol or text workload.

    Attributes:
        title: The system's name in tables.
        variant: The protocol or the text workload of the requests.
        has_open_loop: Whether an open loop follows the closed loops.
        clients: The only numbers of clients to measure, if the run has any of them.
        required: The numbers of clients that are measured however long it takes.
        tokens_per_answer: Average number of new tokens of an answer, times its beams; 0 for images.
        problem: Why there are no results; None if there are results.
        facts: Facts about the system, such as its engine and precision.
        idle_cores: CPU cores used while idle.
        is_paused: Whether the system is paused during measurements of other systems.
        closed: Medians of the closed loops by number of clients.
        skipped: Why there is no closed loop, by number of clients.
        spread: Relative spread of the rounds by number of clients.
        open: Open loops: offered requests/s, share of the capacity, and statistics.
        memory: PSS and USS in megabytes.
    """

    name: str
    title: str
    is_peer: bool = False
    variant: str = ""
    has_open_loop: bool = False
    clients: tuple[int, ...] = ()
    required: tuple[int, ...] = ()
    tokens_per_answer: float = 0.0
    problem: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    start_seconds: float = 0.0
    idle_cores: float = 0.0
    is_paused: bool = False
    closed: dict[int, LoadStatistics] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    spread: dict[int, float] = field(default_factory=dict)
    open: list[tuple[float, float, LoadStatistics]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def capacity(self) -> float:
        """The highest rate of all closed loops in requests/s; 0 if there are no closed loops."""
        return max((summary.requests_per_second for summary in self.closed.values()), default=0.0)

    @property
    def full_title(self) -> str:
        """The title with the engine and the precision, if known."""
        facts = [str(self.facts[key]) for key in ("engine", "precision") if self.facts.get(key)]
        return f"{self.title} ({', '.join(facts)})" if facts else self.title

    @property
    def error_count(self) -> int:
        return sum(summary.error_count for summary in self.closed.values())

    def as_json(self) -> dict[str, Any]:
        closed = {
            str(connections): {**summary.as_json(), "spread_of_rounds": self.spread.get(connections, 0.0)}
            for connections, summary in self.closed.items()
        }
        open_loops = [
            {"offered_per_second": rate, "share_of_capacity": share, **summary.as_json()}
            for rate, share, summary in self.open
        ]
        title = self.title.replace("*", "")
        data = {**vars(self), "title": title, "closed": closed, "open": open_loops}
        return {key: value for key, value in data.items() if key not in ("spread", "clients", "required")}


@dataclass(frozen=True)
class Results:
    """The rows of a run by name, and its client counts."""

    rows: Mapping[str, Row]
    concurrency: tuple[int, ...]

    def get(self, name: str, connections: int) -> LoadStatistics | None:
        """Return the statistics of a row's closed loop, None if it was not measured."""
        row = self.rows.get(name)
        return row.closed.get(connections) if row else None
