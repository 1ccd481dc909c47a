"""What one run is made of: models, store, run folder and effective settings; as JSON for another process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client import Endpoints
from serving import config
from serving.ports import Ports, endpoints, open_to
from serving.rundir import RunDir


@dataclass(frozen=True)
class Plan:
    """`settings` are those that TorchServe gets, complete."""

    models: tuple[str, ...]
    store: Path
    run: RunDir
    settings: Mapping[str, str]

    @property
    def endpoints(self) -> Endpoints:
        return endpoints(self.settings)

    def as_json(self) -> str:
        plan = {
            "models": self.models,
            "store": str(self.store),
            "run": str(self.run.path),
            "settings": dict(self.settings),
        }
        return json.dumps(plan)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        raw = json.loads(text)
        return cls(tuple(raw["models"]), Path(raw["store"]), RunDir(Path(raw["run"])), raw["settings"])


def plan(
    models: Sequence[str],
    store: Path,
    run_dir: Path,
    ports: Ports | None = None,
    offset: int = 0,
    host: str | None = None,
) -> Plan:
    """config.properties, with `ports`, or its own ones shifted by `offset`, and open to others on `host`."""
    settings = config.read()
    if host is not None:
        settings |= open_to(settings, host)
    ports = ports or Ports.from_settings(settings).shifted(offset)
    store, run_dir = store.resolve(), run_dir.resolve()
    return Plan(
        models=tuple(models),
        store=store,
        run=RunDir(run_dir),
        settings=config.for_run(settings, ports.settings(settings), store, models),
    )
