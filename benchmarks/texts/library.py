"""Libraries without a server, each in a process of its own that runs batches when asked."""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import environments
from benchmarks.systems.base import Served, Workplace
from benchmarks.systems.peer import Stage
from benchmarks.texts.models import TextModel
from benchmarks.texts.peers import TextPeer
from benchmarks.texts.systems import Batches
from benchmarks.texts.workloads import Workload
from torchserve_models.loadgen import LoadGenerator


class Library(TextPeer):
    """benchmarks/peers/text-library/host.py with one of its libraries, which converts the model where it has to."""

    files = "text-library"
    workloads = ("a",)
    patience = 600.0  # converting a large model takes minutes, once

    def __init__(
        self, model: TextModel, name: str, title: str, library: str, precision: str, packages: str = ""
    ) -> None:
        super().__init__(model)
        self.name, self.title = name, f"no server: {title}"
        self._library, self._precision, self._packages = library, precision, packages

    def packages(self, place: Workplace) -> Path:
        if not self._packages:
            return Path(sys.executable).parent
        files = environments.PEERS / self.files
        wanted = files / f"requirements-{self._packages}.txt"
        return environments.ready(f"text-{self._packages}", place.root / "venvs", wanted)

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "python"), "host.py", self._library, self._precision]]

    def environment(self, stage: Stage) -> Mapping[str, str]:
        return {"CONVERTED": str(stage.folder / f"{self.model.name}-{self._library}-{self._precision}")}

    def under(self, served: Served, work: Workload, generator: LoadGenerator) -> Batches:
        return Batches(served, self, work, generator)
