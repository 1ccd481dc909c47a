"""Plan of one run: models, store, run folder and effective settings; serializable as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.ports import Ports, endpoints, open_to
from torchserve_models.serving.run_config.run_dir import RunDir

GRACE_S = 60.0
"""Default grace period; shutdown proceeds as soon as all requests are answered."""
MAX_GRACE_S = 3600.0
SHUTDOWN_S = 3.0
"""Time for the front end to shut down; netty's default needs two seconds of it."""


@dataclass(frozen=True)
class Plan:
    """Plan of one run. `settings` are TorchServe's complete settings."""

    models: tuple[str, ...]
    store: Path
    run: RunDir
    settings: Mapping[str, str]
    grace: float = GRACE_S
    """Maximum seconds for finishing accepted requests at shutdown."""
    drain_delay: float = 0.0
    """Seconds at shutdown in which the server reports not ready but still accepts requests."""

    @property
    def stop_seconds(self) -> float:
        """Maximum duration of the shutdown in seconds."""
        return self.drain_delay + self.grace + SHUTDOWN_S + 1.0

    @property
    def endpoints(self) -> Endpoints:
        return endpoints(self.settings)

    def as_json(self) -> str:
        plan = {
            "models": self.models,
            "store": str(self.store),
            "run": str(self.run.path),
            "settings": dict(self.settings),
            "grace": self.grace,
            "drain_delay": self.drain_delay,
        }
        return json.dumps(plan)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        record = json.loads(text)
        return cls(
            tuple(record["models"]),
            Path(record["store"]),
            RunDir(Path(record["run"])),
            record["settings"],
            record["grace"],
            record["drain_delay"],
        )


def plan(
    models: Sequence[str],
    store: Path,
    run_dir: Path,
    ports: Ports | None = None,
    offset: int = 0,
    host: str | None = None,
    grace: float = GRACE_S,
    drain_delay: float = 0.0,
) -> Plan:
    """Plan a run from config.properties, with `ports` or its own shifted by `offset`, listening on `host`."""
    settings = config_file.read()
    if host is not None:
        settings |= open_to(settings, host)
    ports = ports or Ports.from_settings(settings).shifted(offset)
    store, run_dir = store.resolve(), run_dir.resolve()
    return Plan(
        models=tuple(models),
        store=store,
        run=RunDir(run_dir),
        settings=config_file.for_run(settings, ports.settings(settings), store, models),
        grace=grace,
        drain_delay=drain_delay,
    )
