"""Which registration of a model answers now, asked anew for every request.

A cached answer must not outlive its version: after `set-default`, or after a version was replaced by another archive,
the next answer is that of the new one. Clients of the management API do this without the gateway, so only TorchServe
itself knows. Its management API describes a version in 0.2 to 0.3 ms.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

PAUSE_S = 5.0
"""Seconds in which the management API is not asked after it did not answer in time."""


@dataclass(frozen=True)
class Registration:
    """One registration of one version of a model.

    TorchServe unpacks the archive when it registers a version, so all answers of a registration come from the same
    archive. The oldest worker identifies it: its number and start time are those of no other registration, even
    after a restart of TorchServe or if the same version is registered again from another file.
    """

    model: str
    version: str
    worker: str
    started: str


class Registrations:
    """The current registration of each model or version."""

    def __init__(
        self,
        get: Callable[[str], Awaitable[tuple[int, bytes]]],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            get: Returns the status and body of TorchServe's management API for a path, see GetClient.
            timeout_s: Time limit for an answer. A busy management API must not delay predictions for longer.
            clock: Replaces the clock in tests.
        """
        self._get = get
        self._timeout_s = timeout_s
        self._clock = clock
        self._paused_until = -float("inf")
        self._asking: dict[str, asyncio.Task[Registration | None]] = {}
        self._next: dict[str, asyncio.Task[Registration | None]] = {}

    def __len__(self) -> int:
        """Return the number of models and versions about which the management API is being asked."""
        return len(self._asking.keys() | self._next.keys())

    @property
    def is_paused(self) -> bool:
        """Whether the management API did not answer in time a short while ago."""
        return self._clock() < self._paused_until

    async def current(self, model: str, version: str) -> Registration | None:
        """Return the registration that answers requests for a version, or for the default version if it is empty.

        The management API is asked after this call. Callers that come while it is being asked share the next
        question.

        Returns:
            None if the version does not exist, has no worker, or the management API does not answer in time, or did
            not in the last PAUSE_S.
        """
        if self.is_paused:
            return None
        path = f"/models/{quote(model, safe='')}" + (f"/{quote(version, safe='')}" if version else "")
        if path not in self._next:
            self._next[path] = asyncio.ensure_future(self._ask_after_others(model, path))
        # A caller that is canceled must not cancel the question of the others.
        return await asyncio.shield(self._next[path])

    async def _ask_after_others(self, model: str, path: str) -> Registration | None:
        """Ask the management API as soon as the question before this one is answered."""
        if before := self._asking.get(path):
            await asyncio.wait([before])
        self._asking[path] = self._next.pop(path)
        try:
            if self.is_paused:
                return None
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._get(path)
        except TimeoutError:
            self._paused_until = self._clock() + PAUSE_S
            return None
        except (OSError, EOFError, ValueError):
            return None
        finally:
            del self._asking[path]
        return _parse_description(model, body) if status == 200 else None


def _parse_description(model: str, body: bytes) -> Registration | None:
    """Return the registration in an answer of the management API; None if it has no worker, or for another answer."""
    try:
        (description,) = json.loads(body)
        workers = [(worker["startTime"], str(worker["id"])) for worker in description["workers"]]
        started, worker = min(workers)
        return Registration(model, description["modelVersion"], worker, started)
    except (ValueError, KeyError, TypeError):
        return None
