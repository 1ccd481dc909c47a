"""What the project promises of its speed, line by line: what was measured, and whether it holds here."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.agreement import Agreement
from benchmarks.results import Results
from benchmarks.systems.catalog import CEILINGS, INT8, PEERS, REST
from torchserve_models.loadgen import Summary

OF_CEILING = 0.85
OVER_PEERS = 7.0
AIM_OVER_PEERS = {REST: 10.0, INT8: 15.0}
MILLISECONDS_MORE = 3.0
TAIL = 4.0
GOODPUT = 0.8
SAME = {REST: 0.99, INT8: 0.98}
ON_A_GPU = 4388.0  # requests/s: ResNet-50 behind Triton on one A100, at 64 at once, with ready tensors
NO_ANSWER = "no answer"
_VARIANTS = {REST: "as packed", INT8: "int8"}


@dataclass(frozen=True)
class Bar:
    """`met` is None where it was not measured, or not wholly."""

    what: str
    measured: str
    bar: str
    met: bool | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def bars(results: Results, agreements: Sequence[Agreement], gpu: bool) -> list[Bar]:
    """Every line, the same ones always."""
    found = []
    for line in (_ceiling, _peers, _latency_to_ceiling, _latency_to_peers, _tail, _overload):
        for name, variant in _VARIANTS.items():
            found.append(_or_unmeasured(*line(results, name, variant)))
    for name, variant in _VARIANTS.items():
        found.append(_same(agreements, name, variant))
    found.append(
        _gpu(results)
        if gpu
        else Bar("JPEG requests/s at 64 on an H200", "no GPU here", "at least 4388", None)
    )
    return found


Line = tuple[str, str, Callable[[], tuple[str, bool | None] | None]]


def _or_unmeasured(what: str, bar: str, find: Callable[[], tuple[str, bool | None] | None]) -> Bar:
    found = find()
    return Bar(what, found[0], bar, found[1]) if found else Bar(what, "not measured", bar, None)


def _ceiling(results: Results, name: str, variant: str) -> Line:
    high = max(results.concurrency)

    def find() -> tuple[str, bool | None] | None:
        ours, ceiling = results.at(name, high), results.at(CEILINGS[name], high)
        if ours is None or ceiling is None or not ceiling.requests_per_second:
            return None
        ratio = ours.requests_per_second / ceiling.requests_per_second
        return f"{ratio:.2f}", ratio >= OF_CEILING

    return f"requests/s at {high} over the in-process ceiling, {variant}", f"at least {OF_CEILING}", find


def _peers(results: Results, name: str, variant: str) -> Line:
    high = max(results.concurrency)

    def find() -> tuple[str, bool | None] | None:
        ours = results.at(name, high)
        theirs = {peer: found.requests_per_second for peer, found in _answered(results, high).items()}
        if ours is None or not theirs:
            return None
        best = max(theirs, key=lambda peer: theirs[peer])
        ratio = ours.requests_per_second / theirs[best]
        measured = f"{ratio:.1f} times {best}, the fastest of {len(theirs)}"
        return measured + _missing(theirs), _of_all(theirs, ratio >= OVER_PEERS)

    aim = f"at least {OVER_PEERS:.0f} (aim {AIM_OVER_PEERS[name]:.0f})"
    return f"requests/s at {high} over each peer, {variant}", aim, find


def _answered(results: Results, concurrency: int) -> dict[str, Summary]:
    """The peers that answered every request."""
    found = {peer.name: peer.at(concurrency) for peer in results.peers}
    return {
        name: each for name, each in found.items() if each and each.requests_per_second and not each.errors
    }


def _missing(theirs: Collection[str]) -> str:
    missing = [peer for peer in PEERS if peer not in theirs]
    return f"; without {', '.join(missing)}" if missing else ""


def _of_all(theirs: Collection[str], holds: bool) -> bool | None:
    """What one peer refutes is broken; what holds is kept only if every peer answered."""
    return None if holds and _missing(theirs) else holds


def _latency_to_ceiling(results: Results, name: str, variant: str) -> Line:
    def find() -> tuple[str, bool | None] | None:
        ours, ceiling = results.at(name, 1), results.at(CEILINGS[name], 1)
        if ours is None or ceiling is None:
            return None
        if math.isnan(ours.p50):
            return NO_ANSWER, False
        more = ours.p50 - ceiling.p50
        return f"{ours.p50:.1f} ms, {more:+.1f} ms", more <= MILLISECONDS_MORE

    return f"p50 at 1 against in process, {variant}", f"at most {MILLISECONDS_MORE:.0f} ms more", find


def _latency_to_peers(results: Results, name: str, variant: str) -> Line:
    def find() -> tuple[str, bool | None] | None:
        ours = results.at(name, 1)
        theirs = {peer: found.p50 for peer, found in _answered(results, 1).items()}
        if ours is None or not theirs:
            return None
        if math.isnan(ours.p50):
            return NO_ANSWER, False
        best = min(theirs, key=lambda peer: theirs[peer])
        measured = f"{ours.p50:.1f} ms; {best} {theirs[best]:.1f} ms"
        return measured + _missing(theirs), _of_all(theirs, ours.p50 < theirs[best])

    return f"p50 at 1 against every peer, {variant}", "below", find


def _tail(results: Results, name: str, variant: str) -> Line:
    def find() -> tuple[str, bool | None] | None:
        row = results.rows.get(name)
        summary = row.offered(0.7) if row else None
        if summary is None:
            return None
        if math.isnan(summary.p50):
            return NO_ANSWER, False
        ratio, errors = summary.p99 / summary.p50, summary.error_count
        return f"{ratio:.1f} times the p50, {errors} errors", ratio < TAIL and not errors

    return f"p99 at 70 % of capacity, {variant}", f"under {TAIL:.0f} times the p50, no error", find


def _overload(results: Results, name: str, variant: str) -> Line:
    def find() -> tuple[str, bool | None] | None:
        row = results.rows.get(name)
        summary = row.offered(1.5) if row else None
        if row is None or summary is None or not row.capacity:
            return None
        share = summary.requests_per_second / row.capacity
        refused = f"; refused within {summary.rejected_within:.0f} ms (p99)" if summary.errors else ""
        return f"{share:.2f} of the capacity{refused}", share >= GOODPUT

    return f"good answers at 150 % of capacity, {variant}", f"at least {GOODPUT} of the capacity", find


def _same(agreements: Sequence[Agreement], name: str, variant: str) -> Bar:
    what, bar = f"first label as in fp32 eager, {variant}", f"at least {SAME[name]:.0%}"
    for each in agreements:
        if each.name == name:
            measured = f"{each.share:.1%} of {each.images} ({each.precision})"
            return Bar(what, measured, bar, each.share >= SAME[name])
    return Bar(what, "not measured", bar, None)


def _gpu(results: Results) -> Bar:
    summary = results.at(REST, 64)
    what, bar = "JPEG requests/s at 64 on a GPU", f"at least {ON_A_GPU:.0f} on an H200"
    if summary is None:
        return Bar(what, "not measured: --concurrency 1,8,32,64", bar, None)
    return Bar(what, f"{summary.requests_per_second:.0f}", bar, summary.requests_per_second >= ON_A_GPU)
