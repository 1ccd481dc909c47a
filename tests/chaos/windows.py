"""Time windows of faults, which explain lost requests: those in flight while a process on their path was killed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.faults import Fault
from tests.chaos.outcomes import PLAIN, Category, Record

LONGEST_S = 60.0
AROUND_S = 1.0
NEAR_S = 10.0
"""A lost request is reported with the faults from this many seconds before its start until its end."""

# By path to the server: kinds of faults in which a client inevitably loses requests in flight, because nothing
# between the client and the killed process can send a request again.
EXCUSES: Mapping[str, tuple[str, ...]] = {
    "raw": ("worker", "java"),
    "nginx": ("nginx",),
    "client": (),
}


@dataclass(frozen=True)
class FaultWindow:
    """Time window from a fault until every affected model has answered a request sent after the fault.

    `recovered` is None if a model has not answered again.
    """

    fault: Fault
    recovered: float | None

    @property
    def end(self) -> float:
        return self.recovered if self.recovered is not None else self.fault.at + LONGEST_S

    @property
    def seconds(self) -> float | None:
        """Seconds from the fault to the recovery; None without recovery."""
        return None if self.recovered is None else round(self.recovered - self.fault.at, 2)

    def holds(self, record: Record) -> bool:
        same = not self.fault.target or record.model in ("", self.fault.target)
        return same and record.ended >= self.fault.at - AROUND_S and record.started <= self.end + AROUND_S


def windows(faults: Sequence[Fault], records: Sequence[Record]) -> list[FaultWindow]:
    """Return the window of every fault that did not fail, in order."""
    right = [r for r in records if r.kind == "good" and r.category is Category.RIGHT]
    models = sorted({record.model for record in records if record.kind == "good"})
    fault_windows = []
    for fault in faults:
        if fault.problem:
            continue
        hit = [fault.target] if fault.target else models
        first = [
            min((r.ended for r in right if r.model == model and r.started >= fault.at), default=None)
            for model in hit
        ]
        known = [at for at in first if at is not None]
        fault_windows.append(FaultWindow(fault, max(known) if len(known) == len(first) and known else None))
    return fault_windows


def outages(faults: Sequence[Fault], records: Sequence[Record]) -> list[tuple[float, float]]:
    """Return the periods from each kill or stop to the recovery, in `time.monotonic()` seconds."""
    return [
        (window.fault.at, window.end + AROUND_S)
        for window in windows(faults, records)
        if window.fault.kind not in ("scale", "version")
    ]


def explain(record: Record, fault_windows: Sequence[FaultWindow], via: str) -> str | None:
    """Return the kind of kill that explains the lost request; None if no kill explains it."""
    if via == "client" and record.protocol == PLAIN:
        via = "nginx"  # a bad request that the Python client cannot send
    for window in fault_windows:
        if window.fault.kind in EXCUSES[via] and window.holds(record):
            return window.fault.kind
    return None


def near(record: Record, faults: Sequence[Fault]) -> str:
    """Return a description of the faults shortly before the end of a request."""
    names = [
        f"{fault.name} {record.ended - fault.at:.1f} s before"
        for fault in faults
        if record.started - NEAR_S <= fault.at <= record.ended
    ]
    return "; ".join(names) or "no fault near"
