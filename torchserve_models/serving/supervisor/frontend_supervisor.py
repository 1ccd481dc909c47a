"""Keep the front end running: start it, detect that it has ended or hangs, and restart it with the same models."""

import time
from collections.abc import Callable, Mapping

from torchserve_models import client
from torchserve_models.backoff import Backoff
from torchserve_models.client.readiness_report import Key
from torchserve_models.guardian import is_restart
from torchserve_models.serving.errors import FrontendFailed, Interrupted, RunError
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.health.model_states import ObservedVersion
from torchserve_models.serving.lifecycle import frontend_logs, restore, start_plan
from torchserve_models.serving.lifecycle.recorded_state import StateRecorder
from torchserve_models.serving.lifecycle.snapshot import ModelSnapshot, ServedVersion, SnapshotFilter
from torchserve_models.serving.lifecycle.startup import StartupMonitor, wait_for_frontend
from torchserve_models.serving.lifecycle.version_links import VersionLinks
from torchserve_models.serving.metrics import (
    FRONTEND_RESTARTS,
    FRONTEND_STARTED,
    RESTORE_FAILURES,
    STATE_WRITE_ERRORS,
)
from torchserve_models.serving.run_config.config_file import write
from torchserve_models.serving.run_config.ports import TORCHSERVE_PORTS, check_free
from torchserve_models.serving.run_config.run_plan import RunPlan
from torchserve_models.serving.supervisor.frontend import Frontend, ProcessLauncher
from torchserve_models.serving.supervisor.frontend_monitor import FrontendMonitor

_MAX_DELAY_S = 30.0
_STABLE_S = 60.0
_MAX_RESTARTS = 10
_PORTS_TIMEOUT_S = 10.0
_STEP_S = 0.1

Report = Callable[[str], None]


class FrontendSupervisor:
    """Supervisor of the Java front end.

    Call `start` once, poll `problem`, and call `restart` after a problem. `check` is called during waits and may
    raise an exception to end the wait. `on_launch` is called with each new front end.
    """

    def __init__(
        self,
        plan: RunPlan,
        poller: ModelPoller,
        info: Report,
        check: Callable[[], None],
        on_launch: Callable[[Frontend], None],
    ) -> None:
        self.frontend: Frontend | None = None
        self.snapshot = ModelSnapshot()
        self.missing: Mapping[Key, str] = {}
        """Versions that the last start could not restore, with the reason."""
        self.lost_defaults: Mapping[str, str] = {}
        """Default versions, by model, that the last start could not restore as default."""
        self.has_failures = False
        """Whether `start` could not restore all recorded versions."""
        self._plan = plan
        self._poller = poller
        self._info = info
        self._check = check
        self._on_launch = on_launch
        self._launcher = ProcessLauncher()
        self._monitor: FrontendMonitor | None = None
        self._links = VersionLinks(plan.store, plan.run, info)
        self._recorder = StateRecorder(plan.run.snapshot, plan.store, plan.models, {})
        self._backoff = Backoff(
            initial_delay_s=0.2, max_delay_s=_MAX_DELAY_S, stable_s=_STABLE_S, max_restarts=_MAX_RESTARTS
        )

    @property
    def is_running(self) -> bool:
        return self.frontend is not None and self.frontend.is_running

    def launch(self, settings: Mapping[str, str]) -> None:
        """Start Java without waiting until it answers. Raises FrontendFailed."""
        run = self._plan.run
        write(run.config, settings)
        temporary = run.temporary()
        run.make_worker_folders()
        self.frontend = Frontend.start(self._launcher, run, settings, temporary)
        FRONTEND_STARTED.set_to_current_time()
        self._on_launch(self.frontend)

    def check_start(self) -> None:
        """Raise FrontendFailed if the front end has ended before its first answer."""
        self._check()
        if self.frontend is not None and not self.frontend.is_running:
            output = self._plan.run.output
            raise FrontendFailed(
                f"TorchServe's front end did not start ({self.frontend.ending}): "
                f"{frontend_logs.last_line(output)}\nFull output: {output}"
            )

    def start(self, progress: Report) -> list[ObservedVersion]:
        """Start Java with the recorded and the requested models; return all versions when each answers or has failed.

        Versions of the recorded state that cannot be restored are in `missing`, or have workers that fail.

        Args:
            progress: Receives the current step.

        Raises:
            RunError: The front end does not start, or a model that is new cannot be loaded.
        """
        plan = self._plan
        recorded = start_plan.read_recorded_state(plan.run, plan.store, self._info)
        recovering = is_restart()
        requested = recorded.requested if recorded and recovering else plan.models
        planned = start_plan.plan_start(
            recorded, requested, plan.store, named=plan.named, recovering=recovering
        )
        for message in planned.messages:
            self._info(message)
        if planned.snapshot.versions:
            self._info("restoring the recorded models; to start without them, use scripts/serve --fresh")
        self._recorder = StateRecorder(plan.run.snapshot, plan.store, requested, planned.archives)
        self.snapshot = planned.snapshot
        startup = StartupMonitor(plan, self.check_start, progress)
        progress("starting TorchServe")
        try:
            models = startup.wait(planned.new, self._load(planned.new))
        except client.TorchServeError as error:
            raise FrontendFailed(
                f"TorchServe's front end did not answer while models were restored: {error}\n"
                f"Full log: {plan.run.server_log}"
            ) from error
        self.has_failures = bool(self.missing or startup.failed)
        for reason in startup.failed.values():
            RESTORE_FAILURES.inc()
            self._info(reason)
        served = SnapshotFilter(self.snapshot, self.missing, self.lost_defaults)
        served.update([ServedVersion.of(model) for model in models])
        self._save(served)
        self._start_monitor()
        return models

    def problem(self) -> tuple[str, str] | None:
        """Return why the front end must be restarted, as (metric label, message); None if it is healthy."""
        if self.frontend is None:
            return None
        if not self.frontend.is_running:
            reason = "out_of_memory" if self.frontend.is_out_of_memory else "ended"
            return reason, f"the front end ended unexpectedly ({self.frontend.ending})"
        if self.frontend.is_stopped():
            return "stopped", "the front end was suspended by a signal"
        if self._monitor is not None and (problem := self._monitor.problem):
            return problem
        return None

    def restart(self, reason: str, problem: str) -> None:
        """Terminate the front end, and start it again until it answers.

        Args:
            reason: Metric label of the problem.
            problem: Description of the problem for the log.

        Raises:
            FrontendFailed: The limit of restarts is reached. `check` may raise other exceptions.
        """
        while True:
            delay = self._backoff.next_delay()
            if (
                delay is None and reason == "out_of_memory"
            ):  # requests must not be able to end the server permanently
                delay = _MAX_DELAY_S
            if delay is None:
                raise FrontendFailed(
                    f"TorchServe's front end failed more than {_MAX_RESTARTS} times in a row, each time within "
                    f"{_STABLE_S:.0f} s of its start. Last failure: {problem}\nFull log: {self._plan.run.server_log}"
                )
            FRONTEND_RESTARTS.labels(reason).inc()
            self._info(f"restarting TorchServe's front end: {problem}")
            self.close_monitor()
            if self.frontend is not None:
                self.frontend.end(0.0)
            self._pause(delay)
            try:
                return self._start_again()
            except Interrupted:
                raise
            except Exception as error:  # after any error, the next attempt is made
                reason, problem = "start_failed", str(error) or repr(error)
            finally:
                self._backoff.restarted()

    def close_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        self._monitor = None

    def end(self, timeout: float) -> None:
        """Terminate the front end permanently; SIGKILL after `timeout` seconds."""
        self.close_monitor()
        if self.frontend is not None:
            self.frontend.end(timeout)

    def close(self) -> None:
        self._links.close()
        self._launcher.close()

    def _start_again(self) -> None:
        self._wait_for_ports()
        self._load()
        self._start_monitor()

    def _load(self, new: tuple[str, ...] = ()) -> list[Key]:
        """Start Java with the versions of the snapshot and the models `new`; return the versions that it may have.

        Versions that cannot be loaded are reported and set in `missing`.
        """
        plan = self._plan
        planned = restore.plan_restore(self.snapshot, plan.store, self._links.find, new)
        with restore.archives_in_store(planned, plan.store) as unlinked:
            self.launch(planned.settings(plan.settings))
            wait_for_frontend(plan, self.check_start)
        served = [load.served for load in planned.loads]
        failed = restore.restore_workers(plan.endpoints, served, self._pause) if served else {}
        self.missing = {**planned.missing, **failed, **unlinked}
        for (name, version), reason in self.missing.items():
            RESTORE_FAILURES.inc()
            self._info(f"{name}, version {version}, could not be reloaded: {reason}")
        self.lost_defaults = {
            version.name: version.version
            for version in self.snapshot.versions
            if version.default and version.key in self.missing
        }
        return [version.key for version in served]

    def _start_monitor(self) -> None:
        plan = self._plan
        served = SnapshotFilter(self.snapshot, self.missing, self.lost_defaults)
        self._monitor = FrontendMonitor(self._poller, plan.endpoints.inference, plan.run, served, self._save)
        self._monitor.start()

    def _save(self, served: SnapshotFilter) -> None:
        """Write the snapshot. Called in the monitor's thread after each poll."""
        self.missing = {key: reason for key, reason in self.missing.items() if key in served.absent}
        self.lost_defaults = dict(served.lost_defaults)
        self.snapshot = served.snapshot
        try:
            self._recorder.record(self.snapshot)
        except OSError:  # a full disk; a restart of the front end uses the snapshot in memory
            STATE_WRITE_ERRORS.inc()
        self._links.sync(self.snapshot.versions)

    def _wait_for_ports(self) -> None:
        """Wait until the ports of the terminated front end are free. Raises PortTaken."""
        deadline = time.monotonic() + _PORTS_TIMEOUT_S
        while True:
            try:
                return check_free(self._plan.settings, TORCHSERVE_PORTS)
            except RunError:
                if time.monotonic() >= deadline:
                    raise
                self._pause(0.2)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._check()
            if time.monotonic() >= deadline:
                return
            time.sleep(_STEP_S)
