"""Wait until a new front end listens, its workers are ready and each model has answered, or report the failure."""

import time
from collections.abc import Callable

from torchserve_models import client
from torchserve_models.client import Client, readiness
from torchserve_models.serving.errors import FrontendFailed, ModelFailed
from torchserve_models.serving.health import model_probe
from torchserve_models.serving.health.model_states import ObservedVersion, inspect
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.run_config.run_plan import RunPlan

_FRONTEND_TIMEOUT_S = 120.0
_POLL_INTERVAL_S = 0.25
_PROBE_SLACK_S = 10.0
_TRACEBACK_TIMEOUT_S = (
    3.0  # TorchServe copies the worker's output to its log after it has logged the worker's end
)


def wait_for_frontend(plan: RunPlan, check: Callable[[], None]) -> None:
    """Return when the front end lists its models.

    Raises:
        FrontendFailed: The front end did not answer in time. `check` may raise other exceptions.
    """
    start = time.monotonic()
    while True:
        try:
            with Client(endpoints=plan.endpoints, timeout=2.0, retries=0) as connection:
                connection.list_models()
            return
        except client.TorchServeError as error:
            _check_timeout(plan, error, start)
        check()
        time.sleep(_POLL_INTERVAL_S)


def _check_timeout(plan: RunPlan, error: client.TorchServeError, since: float) -> None:
    if time.monotonic() - since > _FRONTEND_TIMEOUT_S:
        raise FrontendFailed(
            f"TorchServe's front end did not answer within {_FRONTEND_TIMEOUT_S:.0f} s: {error}\n"
            f"Full log: {plan.run.server_log}"
        ) from error


class StartupMonitor:
    """Monitor of one startup. Create it before the front end starts, because it reads the logs from that time on.

    `check` is called while waiting and may raise an exception to end the wait; `progress` receives the current step.
    """

    def __init__(self, plan: RunPlan, check: Callable[[], None], progress: Callable[[str], None]) -> None:
        self._plan = plan
        self._check = check
        self._progress = progress
        self._server_tail = frontend_logs.LogTail(plan.run.server_log)
        self._worker_tail = frontend_logs.LogTail(plan.run.workers_log)
        self._server_lines: list[str] = []

    def wait(self) -> list[ObservedVersion]:
        """Return the models once each has answered. Raises RunError."""
        wait_for_frontend(self._plan, self._check)
        models = self._wait_for_workers()
        for model in models:
            self._start_probe(model)
        return models

    def _wait_for_workers(self) -> list[ObservedVersion]:
        """Wait until all workers are ready; return the models.

        TorchServe loads archives before it listens, so a missing model means a rejected archive.
        """
        answered = time.monotonic()
        while True:
            self._check_for_dead_workers([])
            try:
                models = inspect(self._plan.endpoints, self._plan.models, timeout=10.0)
            except client.ModelNotFound as error:
                raise self._refusal_error(str(error)) from error
            except client.TorchServeError as error:  # loading models may use the whole machine
                _check_timeout(self._plan, error, answered)
                self._pause()
                continue
            answered = time.monotonic()
            self._check_for_dead_workers(models)
            now = time.monotonic()
            waiting = [model.name for model in models if readiness.strength_problem(model.state(now))]
            if not waiting:
                return models
            self._progress(f"loading {', '.join(waiting)}")
            self._pause()

    def _start_probe(self, model: ObservedVersion) -> None:
        if not model.default or not model.min_workers:
            return
        self._progress(f"probing {model.name}")
        deadline = time.monotonic() + model.response_timeout + _PROBE_SLACK_S
        while True:
            remaining_s = max(_POLL_INTERVAL_S, deadline - time.monotonic())
            probe = model_probe.ModelProbe(self._plan.endpoints, self._plan.store, model, remaining_s)
            while probe.answer is None:
                self._pause()
            answer = probe.answer
            if answer.ok and not answer.busy:
                return
            if not answer.busy or time.monotonic() >= deadline:
                raise ModelFailed(
                    f"{model.name} is loaded but does not answer: {answer.problem or 'its requests stay queued'}\n"
                    f"Full worker log: {self._plan.run.workers_log}"
                )
            self._pause()  # nothing else sends requests during startup, so a busy model is probed again

    def _check_for_dead_workers(self, models: list[ObservedVersion]) -> None:
        """Raise ModelFailed if a worker died while loading; TorchServe would retry for five minutes."""
        self._server_lines += self._server_tail.lines()
        for worker in frontend_logs.dead_workers(self._server_lines):
            name = next((model.name for model in models if f"{model.name}_{model.version}" == worker), None)
            if name is None and not models:
                continue
            if frontend_logs.timed_out(self._server_lines, worker):
                reason = "loading took longer than startupTimeout (model-config.yaml) allows"
            else:
                reason = self._wait_for_failure_reason(worker)
            raise ModelFailed(
                f"{name or worker} cannot be loaded: {reason}\nFull worker log: {self._plan.run.workers_log}"
            )

    def _wait_for_failure_reason(self, worker: str) -> str:
        """Return why a worker ended, once its traceback in the log no longer changes, or none has come in time."""
        lines: list[str] = []
        reason = None
        deadline = time.monotonic() + _TRACEBACK_TIMEOUT_S
        while True:
            time.sleep(_POLL_INTERVAL_S)
            lines += self._worker_tail.lines()
            earlier_reason, reason = reason, frontend_logs.find_traceback(lines, worker)
            if reason is not None and reason == earlier_reason:
                return reason
            if time.monotonic() >= deadline:
                return reason or frontend_logs.describe_missing_traceback(lines, worker)

    def _refusal_error(self, answer: str) -> ModelFailed:
        for rejected in frontend_logs.rejected_archives(self._server_lines + self._server_tail.lines()):
            return ModelFailed(
                f"TorchServe rejected {self._plan.store / rejected.archive}: {rejected.reason}\n"
                f"Full log: {self._plan.run.server_log}"
            )
        return ModelFailed(f"{answer}\nFull log: {self._plan.run.server_log}")

    def _pause(self) -> None:
        self._check()
        time.sleep(_POLL_INTERVAL_S)
