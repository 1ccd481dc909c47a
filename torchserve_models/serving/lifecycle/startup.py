"""Waits for a front end that was just started: ports, workers, one answer of each model; or says why not, at once."""

import time
from collections.abc import Callable

from torchserve_models import client
from torchserve_models.client import Client
from torchserve_models.serving.errors import FrontendFailed, ModelFailed
from torchserve_models.serving.health import model_probe
from torchserve_models.serving.health.model_states import Model, inspect
from torchserve_models.serving.lifecycle import frontend_logs
from torchserve_models.serving.run_config.run_plan import Plan

_FRONTEND_TIMEOUT = 120.0
_STEP = 0.25
_CANARY_SLACK = 10.0


def wait_for_frontend(plan: Plan, check: Callable[[], None]) -> None:
    """Return when the front end lists its models. Raises FrontendFailed, and what `check` raises."""
    start = time.monotonic()
    while True:
        try:
            with Client(endpoints=plan.endpoints, timeout=2.0, retries=0) as connection:
                connection.list_models()
            return
        except client.ServeError as error:
            _check_timeout(plan, error, start)
        check()
        time.sleep(_STEP)


def _check_timeout(plan: Plan, error: client.ServeError, since: float) -> None:
    if time.monotonic() - since > _FRONTEND_TIMEOUT:
        raise FrontendFailed(
            f"TorchServe's front end does not answer after {_FRONTEND_TIMEOUT:.0f} s: {error}; "
            f"its log: {plan.run.server_log}"
        ) from error


class Start:
    """Make it before the front end is started: it reads what the logs get from then on.

    `check` raises when there is no use in waiting on; `progress` gets what is being waited for.
    """

    def __init__(self, plan: Plan, check: Callable[[], None], progress: Callable[[str], None]) -> None:
        self._plan = plan
        self._check = check
        self._progress = progress
        self._server = frontend_logs.Tail(plan.run.server_log)
        self._workers = frontend_logs.Tail(plan.run.workers_log)
        self._said: list[str] = []

    def wait(self) -> list[Model]:
        """The models as they are once each has answered. Raises RunError."""
        wait_for_frontend(self._plan, self._check)
        models = self._wait_for_workers()
        for model in models:
            self._ask(model)
        return models

    def _wait_for_workers(self) -> list[Model]:
        """TorchServe registers before it listens, so a model that is not there now was refused."""
        answered = time.monotonic()
        while True:
            self._look_for_dead([])
            try:
                models = inspect(self._plan.endpoints, self._plan.models, timeout=10.0)
            except client.ModelNotFound as error:
                raise self._refused(str(error)) from error
            except client.ServeError as error:  # models that load can take all of the machine
                _check_timeout(self._plan, error, answered)
                self._pause()
                continue
            answered = time.monotonic()
            self._look_for_dead(models)
            waiting = [model.name for model in models if not model.ready]
            if not waiting:
                return models
            self._progress(f"loading {', '.join(waiting)}")
            self._pause()

    def _ask(self, model: Model) -> None:
        if not model.default:
            return
        self._progress(f"asking {model.name}")
        end = time.monotonic() + model.response_timeout + _CANARY_SLACK
        while True:
            left = max(_STEP, end - time.monotonic())
            question = model_probe.Question(self._plan.endpoints, self._plan.store, model, left)
            while question.answer is None:
                self._pause()
            answer = question.answer
            if answer.ok and not answer.busy:
                return
            if not answer.busy or time.monotonic() >= end:
                raise ModelFailed(
                    f"{model.name} is loaded but does not answer: {answer.problem or 'its requests only wait'}\n"
                    f"What its worker says: {self._plan.run.workers_log}"
                )
            self._pause()  # busy is an answer only where others may have sent requests: here, it is asked again

    def _look_for_dead(self, models: list[Model]) -> None:
        """A worker that dies at load would be started again for five minutes: the first time is enough."""
        self._said += self._server.lines()
        for worker in frontend_logs.dead_workers(self._said):
            name = next((model.name for model in models if f"{model.name}_{model.version}" == worker), None)
            if name is None and not models:
                continue
            time.sleep(0.3)  # the worker's output and the front end's log are written by different threads
            reason = frontend_logs.last_words(self._workers.lines(), worker)
            if frontend_logs.too_slow(self._said, worker):
                reason = "it took longer than startupTimeout (model-config.yaml) allows"
            raise ModelFailed(
                f"{name or worker} cannot be loaded: {reason}\n"
                f"What its worker says, in full: {self._plan.run.workers_log}"
            )

    def _refused(self, answer: str) -> ModelFailed:
        for refusal in frontend_logs.refusals(self._said + self._server.lines()):
            return ModelFailed(
                f"{refusal.archive} is refused by TorchServe: {refusal.reason}\n"
                f"The archive: {self._plan.store / refusal.archive}; the log: {self._plan.run.server_log}"
            )
        return ModelFailed(f"{answer}; the log: {self._plan.run.server_log}")

    def _pause(self) -> None:
        self._check()
        time.sleep(_STEP)
