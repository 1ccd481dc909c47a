"""A running server as an object: start, check, stop."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from torchserve_models.client import Endpoints
from torchserve_models.client.endpoints import RUN_DIR
from torchserve_models.packing.models import LAYOUT
from torchserve_models.packing.request import Weights
from torchserve_models.serving.archives import preparation
from torchserve_models.serving.commands import status
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.run_config.run_plan import plan_run
from torchserve_models.serving.supervisor.supervisor import Supervisor

LIBRARY_RUN_DIR = RUN_DIR / "library"
"""The default run folder of `start`, so that it does not change the recorded state of scripts/serve."""


def start(
    models: Sequence[str] = (),
    weights: Weights = "starter",
    *,
    ports: Ports | None = None,
    run_dir: Path = LIBRARY_RUN_DIR,
    store: Path = LAYOUT.store,
    pack: bool = True,
    report: preparation.LogFunction = lambda _: None,
) -> "Server":
    """Pack missing archives, start TorchServe, and return when every model has answered. Raises RunError.

    `ports` default to free ports. With `pack=False`, the archives in `store` are served unchanged. The models that an
    earlier server has recorded in `run_dir` are discarded. The front end ends when the calling thread ends, so
    call this from a thread that runs as long as the server.
    """
    names = (
        preparation.prepare_archives(models, weights, store, report)
        if pack
        else preparation.find_archives(models, store)
    )
    with ExitStack() as reservations:
        ports = ports or Ports.reserve(reservations)
        supervisor = Supervisor(plan_run(names, store, run_dir, ports, fresh=True), report)
        supervisor.start()
        return Server(supervisor, reservations.pop_all())


class Server:
    """A running server. `failure` is set if it has ended unexpectedly."""

    def __init__(self, supervisor: Supervisor, reservations: ExitStack) -> None:
        """`reservations` reserves the ports; it is closed when the server stops."""
        self._supervisor = supervisor
        self._reservations = reservations
        self.failure: Exception | None = None
        plan = supervisor.plan
        self.endpoints: Endpoints = plan.endpoints
        self.inference = self.endpoints.inference
        self.management = self.endpoints.management
        self.metrics = self.endpoints.metrics
        self.grpc_inference = self.endpoints.grpc_inference
        self.grpc_management = self.endpoints.grpc_management
        self.models = plan.models
        self.store = plan.store
        self.run_dir = plan.run.path
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ready(self) -> bool:
        """Return whether every model can answer now, as GET /readyz does."""
        return status.is_ready(self.endpoints)

    def stop(self) -> None:
        """Stop the front end and every worker. May be called twice."""
        self._supervisor.request_stop()
        self._thread.join()
        self._supervisor.stop()
        self._reservations.close()

    def _watch(self) -> None:
        try:
            self._supervisor.watch()
        except Exception as error:  # the server is no longer supervised
            self.failure = error
            self._supervisor.stop("failed", str(error))
