"""What several systems run on: started when first asked for, ended with the last of them."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from benchmarks.errors import Unavailable

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


class Shared(Generic[Key, Found]):
    """One for each key; a failure is remembered, not tried again."""

    def __init__(self, stop: Callable[[Found], None]) -> None:
        self._stop = stop
        self._found: dict[Key, Found | Unavailable] = {}
        self._users: dict[Key, set[str]] = {}

    def get(self, key: Key, start: Callable[[], Found]) -> Found:
        """Raises Unavailable."""
        if key not in self._found:
            try:
                self._found[key] = start()
            except Unavailable as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, Unavailable):
            raise found
        return found

    def enter(self, key: Key, name: str) -> None:
        """That system runs on it now."""
        self._users.setdefault(key, set()).add(name)

    def failed(self, key: Key, error: BaseException) -> None:
        """One way to ask it failed: it ends, unless another system runs on it."""
        if not self._users.get(key):
            self._end(key, Unavailable(str(error)))

    def leave(self, key: Key, name: str) -> None:
        """That system needs it no longer; twice does no harm."""
        users = self._users.setdefault(key, set())
        users.discard(name)
        if not users:
            self._end(key, Unavailable("it was ended"))

    def _end(self, key: Key, reason: Unavailable) -> None:
        found = self._found[key]
        if not isinstance(found, Unavailable):
            self._found[key] = reason
            self._stop(found)
