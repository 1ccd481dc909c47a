"""A server that somebody else has started: only the load is ours."""

import psutil

from benchmarks.systems.base import Served, System, Workplace
from benchmarks.systems.catalog import REST
from torchserve_models.loadgen import LoadGenerator, Target


class RunningServer(System):
    """Its processes are not known, so there is no memory to report."""

    name = REST

    def __init__(self, url: str, model: str, target: Target) -> None:
        self.title = f"{model} at {url}"
        self._target = target

    def start(self, _place: Workplace, generator: LoadGenerator) -> Served:
        return _Elsewhere(self._target, generator)


class _Elsewhere(Served):
    def processes(self) -> list[psutil.Process]:
        return []

    def stop(self) -> None:
        """It goes on."""
