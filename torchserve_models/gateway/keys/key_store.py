"""The keys in the gateway's memory, which follow the key file, and their limits."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torchserve_models.gateway.keys.api_key import ApiKey, parse_key_id
from torchserve_models.gateway.keys.key_file import KeyFile, KeyFileError

logger = logging.getLogger(__name__)


@dataclass
class TokenBucket:
    """The rate limit of a key: `rate` requests per second, and as many at once."""

    rate: int
    tokens: float
    updated: float

    def take(self, now: float) -> bool:
        """Count a request at the time `now`, in seconds. Return whether it is within the limit."""
        self.tokens = min(float(self.rate), self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class KeyStore:
    """The keys of a key file.

    Each use checks whether the file has changed, so a change needs no restart and no signal.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a store. The file is read at the first use.

        Args:
            path: The key file.
            clock: Returns the time in seconds.
        """
        self._file = KeyFile(path)
        self._clock = clock
        self._signature: tuple[int, ...] | None = None
        self._keys: dict[str, ApiKey] = {}
        self._problem: KeyFileError | None = None
        self._buckets: dict[str, TokenBucket] = {}

    def find(self, text: str) -> ApiKey | None:
        """Return the key of a text that a client sent, or None if it is unknown or has expired.

        Raises:
            KeyFileError: The key file cannot be read. No request is accepted until it can, because older content may
                contain keys that have been revoked.
        """
        key = self.get(parse_key_id(text) or "")
        return key if key is not None and key.matches(text) else None

    def get(self, key_id: str) -> ApiKey | None:
        """Return a key by its id. Raises KeyFileError, see `find`."""
        self._refresh()
        if self._problem is not None:
            raise self._problem
        return self._keys.get(key_id)

    def is_within_rate(self, key: ApiKey) -> bool:
        """Count a request. Return whether the key's rate allows it."""
        if key.rate is None:
            return True
        now = self._clock()
        bucket = self._buckets.get(key.id)
        if bucket is None or bucket.rate != key.rate:
            bucket = self._buckets[key.id] = TokenBucket(key.rate, float(key.rate), now)
        return bucket.take(now)

    def _refresh(self) -> None:
        """Read the file if it has changed since the last call."""
        signature: tuple[int, ...] = ()
        with suppress(OSError):
            status = self._file.path.stat()
            signature = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._keys, self._problem = self._file.read(), None
        except KeyFileError as error:
            self._keys, self._problem = {}, error
            logger.error("%s. Requests get 503 until the file is valid", error)
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in self._keys}
