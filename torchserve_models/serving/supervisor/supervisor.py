"""Supervisor of one run: start the front end, wait until its models answer, restart it if it fails, and stop it."""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from torchserve_models.files import PathLock
from torchserve_models.guardian import is_restart
from torchserve_models.serving.errors import FrontendFailed, Interrupted
from torchserve_models.serving.health.health_monitor import HealthMonitor
from torchserve_models.serving.health.model_poller import ModelPoller
from torchserve_models.serving.lifecycle.start_plan import discard_recorded_state
from torchserve_models.serving.metrics import MEMORY_BUDGET, STATE_WRITE_ERRORS, WATCH_ERRORS
from torchserve_models.serving.run_config.cores import count_cores
from torchserve_models.serving.run_config.memory_budget import budget_here
from torchserve_models.serving.run_config.ports import Ports, check_free
from torchserve_models.serving.run_config.run_plan import SHUTDOWN_S, RunPlan
from torchserve_models.serving.run_config.state import Phase, ProcessIdentity, RunState
from torchserve_models.serving.supervisor.cleanup import clean_up, remove_stale_activity, remove_unused_models
from torchserve_models.serving.supervisor.drain import wait_until_drained
from torchserve_models.serving.supervisor.edge_events import EdgeEvents
from torchserve_models.serving.supervisor.frontend import Frontend
from torchserve_models.serving.supervisor.frontend_supervisor import FrontendSupervisor
from torchserve_models.serving.supervisor.reporter import AsyncReporter
from torchserve_models.serving.system import log_rotation
from torchserve_models.serving.system.listeners import close_listeners
from torchserve_models.serving.system.systemd import SystemdNotifier

_STEP_S = 0.1
_SECONDS = re.compile(r"\d+ s\b")  # a growing duration is not a new message
_HOUSEKEEPING_S = 30.0
_MIN_SIGNAL_INTERVAL_S = 1.0
"""Time after the first signal in which further signals have no effect."""
_LONG_GRACE_S = 5.0
"""Grace period above which the wait for running requests is announced."""
_BATCH_GATHERING_S = 1.0
"""Time for requests that have left the queue but wait up to `maxBatchDelay` for their batch."""

Report = Callable[[str], None]


class Supervisor:
    """One run of the server. Call `start`, then `watch`, and always `stop`.

    `info` receives each event as a message for the user, `progress` the current step. Neither can block the
    supervisor.
    """

    def __init__(self, plan: RunPlan, info: Report, progress: Report | None = None) -> None:
        self.plan = plan
        self.reporter = AsyncReporter()
        self._info = self.reporter.wrap(info)
        self._progress = self.reporter.wrap(progress or (lambda _: None))
        self._stop_requested_at: float | None = None
        self._skips_waiting = False
        self._lock: PathLock | None = None
        self._state: RunState | None = None
        self._notifier = SystemdNotifier()
        self._poller = ModelPoller(plan.endpoints, self._info)
        self._frontend_supervisor = FrontendSupervisor(
            plan, self._poller, self._info, self._check_stop_request, self._note_frontend
        )
        self._monitor: HealthMonitor | None = None
        self._edge_events: EdgeEvents | None = None
        self._next_housekeeping = 0.0

    @property
    def phase(self) -> Phase:
        """Current phase; "stopping" as soon as a stop has been requested."""
        if self._state is None:
            return "starting"
        is_ending = self._stop_requested_at is not None and self._state.phase not in ("stopped", "failed")
        return "stopping" if is_ending else self._state.phase

    def start(self) -> None:
        """Start the server; return when every model has answered, except restored ones that have failed.

        Raises:
            RunError: The server could not be started. All processes have been stopped again.
        """
        run = self.plan.run
        run.make()
        self._lock = run.lock()
        try:
            clean_up(RunState.read(run.state), self._info)
            if self.plan.fresh and not is_restart():
                discard_recorded_state(run)
            self._write_initial_state()
            check_free(self.plan.settings)
            self._report_budget()
            self._monitor = HealthMonitor(self.plan, self._poller, self._info)
            self._monitor.start()
            self._receive_edge_events()
            models = self._frontend_supervisor.start(self._report_progress)
            self._publish_missing_models()
            self._monitor.serve(models)
            self._set_started([model.name for model in models if model.default])
            self._notifier.ready()
        except BaseException as error:
            self.stop("failed" if isinstance(error, Exception) else "stopped", str(error))
            raise

    def request_stop(self) -> None:
        """Request a stop. Safe in any thread and in signal handlers, where an Event could deadlock."""
        if self._monitor is not None:
            self._monitor.phase = "stopping"
        if self._stop_requested_at is None:
            self._stop_requested_at = time.monotonic()

    def on_signal(self) -> None:
        """Handle a signal: the first requests a stop; a second, over a second later, also ends running requests."""
        if (
            self._stop_requested_at is not None
            and time.monotonic() - self._stop_requested_at > _MIN_SIGNAL_INTERVAL_S
        ):
            self._skips_waiting = True
        self.request_stop()

    def watch(self) -> None:
        """Watch the server until a stop is requested. Raises FrontendFailed at the limit of restarts."""
        last_error = ""
        while self._stop_requested_at is None:
            time.sleep(_STEP_S)
            try:
                self._step()
            except FrontendFailed:
                raise
            except Interrupted:
                return
            except Exception as error:  # an internal error: supervision must continue
                WATCH_ERRORS.inc()
                if repr(error) != last_error:
                    self._info(f"unexpected error in the supervisor, which continues: {error!r}")
                last_error = repr(error)

    def stop(self, phase: Phase = "stopped", message: str = "stopped on request") -> None:
        """Finish accepted requests within the grace period, then end all processes. May be called twice."""
        if self._lock is None:
            return
        self.request_stop()
        self._notifier.stopping()
        if self._frontend_supervisor.frontend is not None and self._state is not None:
            running = self._state.phase in ("ready", "not ready") and self._frontend_supervisor.is_running
            self._set_state("stopping", message)
            if running:
                self._drain(self._frontend_supervisor.frontend)
            self._frontend_supervisor.end(SHUTDOWN_S if running else 0.0)
        self._frontend_supervisor.close()
        for component in (self._monitor, self._edge_events):
            if component is not None:
                component.close()
        if self._state is not None:
            self._set_state(phase, message)
        self.reporter.flush()
        self._lock.close()
        self._lock = None

    def _drain(self, frontend: Frontend) -> None:
        """Report not ready, then reject new requests, then finish the accepted ones."""
        self._wait_for_drain_delay(self.plan.drain_delay)
        self._write_time(self.plan.run.draining, time.time())
        ports = Ports.from_settings(self.plan.settings)
        close_listeners(frontend.pid, (ports.inference, ports.grpc_inference))
        if self.plan.grace > _LONG_GRACE_S:
            self._info(f"waiting up to {self.plan.grace:g} s for running requests; a second signal ends them")
        wait_until_drained(
            self.plan.endpoints,
            self.plan.grace,
            self.plan.run.activity,
            self._should_skip_waiting,
            lambda: self._write_time(self.plan.run.queues_emptied, time.time() + _BATCH_GATHERING_S),
        )

    def _write_time(self, path: Path, seconds: float) -> None:
        try:
            path.write_text(f"{seconds:.3f}\n")
        except OSError as error:
            self._info(f"{path} cannot be written: {error.strerror}")

    def _wait_for_drain_delay(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._should_skip_waiting():
            time.sleep(0.05)

    def _should_skip_waiting(self) -> bool:
        """Return whether to stop waiting; also notifies the service manager's watchdog."""
        self._notifier.watchdog()
        return self._skips_waiting

    def _step(self) -> None:
        """Run one iteration of the watch loop."""
        self._notifier.watchdog()
        self._run_housekeeping()
        if failure := self._frontend_supervisor.problem():
            self._restart(*failure)
        assert self._monitor is not None
        self._publish_missing_models()
        problem = self._monitor.problem()
        message = problem or "every model answers"
        if self._state is not None and _SECONDS.sub("", message) != _SECONDS.sub("", self._state.message):
            self._info(f"not ready: {message}" if problem else "ready again")
            self._set_state("not ready" if problem else "ready", message)

    def _restart(self, reason: str, problem: str) -> None:
        assert self._monitor is not None
        self._set_state("restarting", problem)
        self._monitor.phase = "restarting"
        self._frontend_supervisor.restart(reason, problem)
        self._publish_missing_models()
        self._monitor.serve(())

    def _publish_missing_models(self) -> None:
        """Tell the monitor which models the last restart could not restore; they keep the server not ready."""
        assert self._monitor is not None
        self._monitor.missing = self._frontend_supervisor.missing
        self._monitor.lost_defaults = self._frontend_supervisor.lost_defaults

    def _receive_edge_events(self) -> None:
        """Receive nginx's reports about disconnected clients, on the UDP port with the health port's number."""
        health = urlsplit(self.plan.settings.get("health_address", self.plan.endpoints.health))
        try:
            self._edge_events = EdgeEvents(
                self.plan.run.edge, health.hostname or "127.0.0.1", health.port or 8083
            )
            self._edge_events.start()
        except OSError as error:
            self._info(f"reports of disconnected clients cannot be received: {error}")

    def _run_housekeeping(self) -> None:
        now = time.monotonic()
        if now < self._next_housekeeping or self._frontend_supervisor.frontend is None:
            return
        self._next_housekeeping = now + _HOUSEKEEPING_S
        for path in (self.plan.run.output, self.plan.run.supervisor_log):
            log_rotation.rotate(path)
        poll = self._poller.latest
        if poll is not None and poll.server_description is not None and poll.server_description.is_complete:
            versions = {model.version for model in poll.server_description.models}
            remove_unused_models(self._frontend_supervisor.frontend.temporary, versions)
        remove_stale_activity(self.plan.run.activity)

    def _report_budget(self) -> None:
        budget = budget_here(self.plan.settings)
        for part, size in budget.parts().items():
            MEMORY_BUDGET.labels(part).set(size)
        self._info(str(budget))

    def _write_initial_state(self) -> None:
        self._state = RunState(
            phase="starting",
            message="starting",
            supervisor=ProcessIdentity.of(os.getpid()),
            guardian=ProcessIdentity.of_guardian(),
            frontend=None,
            endpoints=self.plan.endpoints,
            models=self.plan.models,
            store=str(self.plan.store),
            temporary=str(self.plan.run.path / "tmp"),
            stop_seconds=self.plan.stop_seconds,
            cores=count_cores(self.plan.settings),
        )
        self._set_state("starting", "starting")

    def _set_state(self, phase: Phase, message: str) -> None:
        assert self._state is not None
        self._state = replace(self._state, phase=phase, message=message)
        self._notifier.status(f"{phase}: {message}")
        try:
            self._state.write(self.plan.run.state)
        except Exception as error:  # even on a full disk, the processes have to end
            STATE_WRITE_ERRORS.inc()
            self._info(f"{self.plan.run.state} cannot be written: {error}")

    def _set_started(self, names: Sequence[str]) -> None:
        """Set the first phase after the start: "ready", unless a restored version that readiness needs has failed."""
        assert self._state is not None
        assert self._monitor is not None
        problem = self._monitor.problem() if self._frontend_supervisor.has_failures else None
        self._state = replace(self._state, models=tuple(names))
        self._set_state("not ready" if problem else "ready", problem or "every model answers")

    def _report_progress(self, message: str) -> None:
        self._set_state("starting", message)
        self._progress(message)

    def _note_frontend(self, frontend: Frontend) -> None:
        assert self._state is not None
        self._state = replace(self._state, frontend=frontend.identity, temporary=str(frontend.temporary))
        self._set_state(self._state.phase, self._state.message)

    def _check_stop_request(self) -> None:
        """Raise Interrupted if a stop was requested; called while a start or restart waits."""
        self._notifier.watchdog()
        if self._stop_requested_at is not None:
            raise Interrupted("stopped during startup")
