"""Plan of one run: models, store, run folder and effective settings; serializable as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from torchserve_models.client import Endpoints
from torchserve_models.serving.errors import ConfigError
from torchserve_models.serving.run_config import config_file
from torchserve_models.serving.run_config.cores import server_cores
from torchserve_models.serving.run_config.ports import Ports, endpoints_of, open_to
from torchserve_models.serving.run_config.run_dir import RunDir

GRACE_S = 60.0
"""Default grace period at shutdown; it ends early once all requests are answered."""
SHUTDOWN_S = 3.0
"""Time for the front end to shut down; netty needs two seconds by default."""


@dataclass(frozen=True)
class RunPlan:
    """Models, store, run folder and complete TorchServe settings of one run."""

    models: tuple[str, ...]
    """Requested models. The recorded state of the run folder may change what is served (lifecycle/start_plan.py)."""
    store: Path
    run: RunDir
    settings: Mapping[str, str]
    named: bool = False
    """Whether the user has named the models."""
    fresh: bool = False
    """Whether to discard the recorded state and serve the requested models only."""
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
        return endpoints_of(self.settings)

    def as_json(self) -> str:
        return _PLAN.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        return _PLAN.validate_json(text, strict=True, extra="forbid")


_PLAN = TypeAdapter(RunPlan)


def _is_utf8(path: Path) -> bool:
    """Return whether the path can be written to the state file, which is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def plan_run(
    models: Sequence[str],
    store: Path,
    run_dir: Path,
    ports: Ports | None = None,
    offset: int = 0,
    host: str | None = None,
    grace: float = GRACE_S,
    drain_delay: float = 0.0,
    named: bool = False,
    fresh: bool = False,
) -> RunPlan:
    """Return the plan of a run based on config.properties.

    Args:
        models: Names of the requested models.
        store: Folder of the archives.
        run_dir: Run folder.
        ports: Ports of the server; by default those of config.properties plus `offset`.
        offset: Number to add to each port of config.properties; ignored if `ports` is set.
        host: Listen address of all services except management; by default as in config.properties.
        grace: Maximum seconds for finishing accepted requests at shutdown.
        drain_delay: Seconds at shutdown in which the server reports not ready but still accepts requests.
        named: Whether the user has named the models.
        fresh: Whether to discard the recorded state of the run folder.

    Raises:
        ConfigError: config.properties is invalid, or the path of a folder is not UTF-8.
    """
    settings = config_file.read()
    server_cores(settings)  # raises before the server starts
    if host is not None:
        settings |= open_to(settings, host)
    ports = ports or Ports.from_settings(settings).shifted(offset)
    store, run_dir = store.resolve(), run_dir.resolve()
    for folder in (store, run_dir):
        if not _is_utf8(folder):
            raise ConfigError(f"{str(folder)!r} is not valid UTF-8; rename the folder")
    return RunPlan(
        models=tuple(models),
        store=store,
        run=RunDir(run_dir),
        settings=config_file.for_run(settings, ports.settings(settings), store, models),
        grace=grace,
        drain_delay=drain_delay,
        named=named,
        fresh=fresh,
    )
