"""Looks after the models of a running front end: the interface that the supervisor needs, around Watch.

HealthMonitor has the same interface and takes this class's place: the supervisor imports one of the two.
"""

from collections.abc import Callable, Sequence

from serving.plan import Plan
from serving.readiness import Model
from serving.watch import Watch


class ModelMonitor:
    """Call `start` before the front end starts, `serve` when it serves, also after a restart, and `close` at the end.

    `phase` is "starting", "restarting" or "stopping" while there is nothing to look after; `serve` sets "running".
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.phase = "starting"
        self._plan = plan
        self._say = say
        self._watch: Watch | None = None

    def start(self) -> None:
        """Nothing to start."""

    def serve(self, models: Sequence[Model]) -> None:
        """`models` have answered already; after a restart there are none."""
        self._watch = Watch(self._plan, models, self._say)
        self.phase = "running"

    def problem(self) -> str | None:
        """What keeps the server from being ready, or None. Called several times a second."""
        return self._watch.look() if self._watch is not None and self.phase == "running" else None

    def close(self) -> None:
        """Nothing to end."""
