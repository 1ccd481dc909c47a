"""Readiness probes: run the prober on the server's readiness routes and collect its results."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from tests.chaos.stack import ROOT
from torchserve_models.client import Endpoints

INTERVAL_S = 0.1
MAX_SAMPLES = 400_000


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """Result of one probe; `status` is 0 without an answer."""

    at: float
    milliseconds: float
    status: int

    @property
    def ready(self) -> bool:
        return self.status == 200


class Probes:
    """Context manager that probes readiness. `samples` has the results by model; the key "" is the whole server."""

    def __init__(self, bases: Sequence[str], models: Sequence[str], interval: float = INTERVAL_S) -> None:
        self.urls = {name: url for name in ("", *models) if (url := _find(bases, name))}
        self._interval = interval
        self._samples: dict[str, list[ProbeSample]] = {name: [] for name in self.urls}
        self._count = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.prober", str(self._interval), *self.urls.values()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the kernel's autogroups: the load's threads do not compete with the prober
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()

    @property
    def samples(self) -> dict[str, list[ProbeSample]]:
        return {name: list(samples) for name, samples in self._samples.items()}

    def _read(self) -> None:
        names = list(self.urls)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, at, milliseconds, status = json.loads(line)
            if self._count < MAX_SAMPLES:
                self._samples[names[number]].append(ProbeSample(at, milliseconds, status))
                self._count += 1


def bases_of(direct: Endpoints, edge: Endpoints) -> list[str]:
    """Return the base URLs for readiness probes, in order of preference: nginx, supervisor, TorchServe."""
    return list(dict.fromkeys([edge.inference, direct.health, direct.inference]))


def _find(bases: Sequence[str], model: str) -> str | None:
    """Return the URL of the first readiness route that exists. /ping, which ignores the models, is last."""
    paths = (
        (f"/readyz/{model}", f"/v2/models/{model}/ready")
        if model
        else ("/readyz", "/v2/health/ready", "/ping")
    )
    for path in paths:
        for base in bases:
            try:
                status = httpx.get(base + path, timeout=5, trust_env=False).status_code
            except httpx.HTTPError:
                continue
            if status in (200, 503):
                return base + path
    return None
