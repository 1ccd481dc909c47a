"""Store of answers, bounded in bytes and age, from which the least recently used one is removed first."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torchserve_models.gateway.response_cache.cache_metrics import CacheMetrics

ENTRY_OVERHEAD_BYTES = 2048
"""Upper bound of the memory of an entry beyond the text of its body and headers; it also bounds the entries."""


@dataclass(frozen=True)
class Answer:
    """A response to a prediction. Header names are in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def size_bytes(self) -> int:
        """The memory that the answer takes in the store."""
        text = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.body) + text + ENTRY_OVERHEAD_BYTES

    @property
    def has_cookie(self) -> bool:
        """Whether the answer may only go to the client that asked for it."""
        return any(name == b"set-cookie" for name, _ in self.headers)


@dataclass(frozen=True)
class StoredAnswer:
    """An answer, and when it was stored, in `time.monotonic()` seconds."""

    answer: Answer
    stored_at: float


class AnswerStore:
    """Answers by key. All methods take constant time."""

    def __init__(
        self,
        max_bytes: int,
        ttl_s: float,
        metrics: CacheMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            max_bytes: Memory for all answers, including ENTRY_OVERHEAD_BYTES for each.
            ttl_s: Seconds for which an answer is used.
            metrics: Receives the number and size of the answers, and the evictions.
            clock: Replaces the clock in tests.
        """
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._metrics = metrics
        self._clock = clock
        self._entries: OrderedDict[bytes, StoredAnswer] = OrderedDict()
        self._used_bytes = 0

    def get(self, key: bytes, max_age_s: float | None = None) -> tuple[Answer, float] | None:
        """Return an answer and its age in seconds; None if there is none, or none of at most `max_age_s`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age_s = self._clock() - entry.stored_at
        if age_s >= self._ttl_s:
            self._remove(key, "expired")
            return None
        if max_age_s is not None and age_s > max_age_s:
            return None
        self._entries.move_to_end(key)
        return entry.answer, age_s

    def put(self, key: bytes, answer: Answer) -> None:
        """Store an answer, and remove the least recently used ones that no longer fit."""
        if answer.size_bytes > self._max_bytes:
            return
        if key in self._entries:
            self._remove(key, None)
        self._entries[key] = StoredAnswer(answer, self._clock())
        self._used_bytes += answer.size_bytes
        while self._used_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)), "size")
        self._report()

    def _remove(self, key: bytes, reason: str | None) -> None:
        self._used_bytes -= self._entries.pop(key).answer.size_bytes
        if reason is not None:
            self._metrics.evictions.labels(reason).inc()
        self._report()

    def _report(self) -> None:
        self._metrics.bytes.set(self._used_bytes)
        self._metrics.entries.set(len(self._entries))
