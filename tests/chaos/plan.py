"""Schedule of faults and abuse for a run, determined by the seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FAULTS = ("worker", "java", "gateway", "nginx", "scale", "version")
ABUSES = ("disconnect", "slow", "hostile")
KINDS = FAULTS + ABUSES
FRONT_ONLY = ("gateway", "nginx")

FIRST_FAULT_S = 4.0
QUIET_END_S = 25.0
"""Time without faults at the end of a run, in which all parts must recover."""
MAX_EVENTS = 20_000

# Number of faults of each kind in a shuffled deck, and seconds from a fault of each kind to the next fault.
_DECK = {"worker": 3, "java": 1, "gateway": 1, "nginx": 1, "scale": 2, "version": 1}
_PAUSE_S = {"worker": 9.0, "java": 35.0, "gateway": 9.0, "nginx": 9.0, "scale": 12.0, "version": 12.0}
# Mean number of events per second.
_RATE = {"disconnect": 1.5, "slow": 0.5, "hostile": 0.4}
_ACTIONS = {
    "worker": ("kill", "kill", "kill", "stop"),
    "java": ("kill", "kill", "stop"),
    "gateway": ("kill", "kill", "stop"),
    "nginx": ("kill-worker", "kill-master", "kill-all", "stop"),
    "scale": ("up-and-down",),
    "version": ("replace",),
    "disconnect": ("rest", "rest", "grpc"),
    "slow": ("header", "body"),
    "hostile": ("brackets", "deep", "garbage", "header", "grpc-garbage", "stream", "gzip"),
}


@dataclass(frozen=True)
class Event:
    """Fault or abuse that starts `at` seconds after the start of the run and lasts `seconds`; `target` is a model."""

    at: float
    kind: str
    action: str
    target: str
    seconds: float = 0.0


def schedule(
    seed: int, seconds: float, kinds: Sequence[str], models: Sequence[str], with_front: bool = True
) -> tuple[Event, ...]:
    """Return all events in order of time. Equal arguments give equal events.

    Raises:
        ValueError: `kinds` contains an unknown kind.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    chosen = [kind for kind in KINDS if kind in kinds and (with_front or kind not in FRONT_ONLY)]
    rng = random.Random(f"chaos {seed}")
    events = list(_faults(rng, seconds, [kind for kind in chosen if kind in FAULTS], models))
    for kind in (kind for kind in chosen if kind in ABUSES):
        events += _abuses(random.Random(f"chaos {seed} {kind}"), seconds, kind, models)
    return tuple(sorted(events, key=lambda event: event.at)[:MAX_EVENTS])


def _faults(
    rng: random.Random, seconds: float, kinds: Sequence[str], models: Sequence[str]
) -> Iterator[Event]:
    """Yield faults with pauses for recovery; each kind occurs once before any kind occurs again."""
    at = FIRST_FAULT_S
    deck: list[str] = []
    while kinds:
        if not deck:
            again = [kind for kind in kinds for _ in range(_DECK[kind] - 1)]
            first = list(kinds)
            rng.shuffle(first)
            rng.shuffle(again)
            deck = [*again, *first]
        kind = deck.pop()
        if at > max(FIRST_FAULT_S, seconds - QUIET_END_S):
            return
        length = 40.0 if kind == "java" else 20.0
        yield Event(round(at, 3), kind, rng.choice(_ACTIONS[kind]), rng.choice(models), length)
        at += _PAUSE_S[kind] * rng.uniform(0.9, 1.3)


def _abuses(rng: random.Random, seconds: float, kind: str, models: Sequence[str]) -> Iterator[Event]:
    at = rng.expovariate(_RATE[kind])
    while at < seconds:
        length = rng.uniform(2.0, 8.0) if kind == "slow" else rng.uniform(0.0, 0.3)
        yield Event(round(at, 3), kind, rng.choice(_ACTIONS[kind]), rng.choice(models), round(length, 3))
        at += rng.expovariate(_RATE[kind])
