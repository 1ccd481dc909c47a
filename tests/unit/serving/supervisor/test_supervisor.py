"""Tests of stopping the supervisor: signals, failures and shutdown time."""

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.serving.health.observed import MODEL
from torchserve_models.serving import detached_supervisor
from torchserve_models.serving.errors import FrontendFailed
from torchserve_models.serving.health.model_poller import PollResult
from torchserve_models.serving.health.model_states import ServerDescription
from torchserve_models.serving.metrics import WATCH_ERRORS
from torchserve_models.serving.run_config.run_plan import plan_run
from torchserve_models.serving.run_config.state import RunState
from torchserve_models.serving.server import Server
from torchserve_models.serving.supervisor import supervisor as supervisor_module
from torchserve_models.serving.supervisor.supervisor import Supervisor
from torchserve_models.serving.system import log_rotation


def test_second_signal_ends_the_wait_unless_it_is_immediate(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(supervisor_module.time, "monotonic", lambda: now[0])
    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path), print)
    supervisor.on_signal()
    now[0] += 0.2  # a shell that forwards a signal that the terminal has already sent
    supervisor.on_signal()
    assert not supervisor._skips_waiting
    now[0] += 2.0
    supervisor.on_signal()
    assert supervisor._skips_waiting


def test_phase_is_stopping_once_a_stop_is_requested(tmp_path):
    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path / "run"), print)
    assert supervisor.phase == "starting"
    supervisor.request_stop()
    supervisor.plan.run.make()
    supervisor._write_initial_state()
    assert supervisor.phase == "stopping"


@pytest.fixture
def watching(tmp_path):
    """Return a supervisor that has started without a front end."""
    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path / "run"), print)
    supervisor.plan.run.make()
    supervisor._write_initial_state()
    return supervisor


def test_error_is_counted_and_watching_continues(watching, monkeypatch):
    rounds = []

    def step():
        rounds.append(1)
        if len(rounds) > 3:
            watching.request_stop()
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(watching, "_step", step)
    before = WATCH_ERRORS._value.get()
    watching.watch()
    assert len(rounds) == 4
    assert WATCH_ERRORS._value.get() == before + 4


def test_front_end_beyond_the_restart_limit_ends_the_watch(watching, monkeypatch):
    def step():
        raise FrontendFailed("failed too often")

    monkeypatch.setattr(watching, "_step", step)
    with pytest.raises(FrontendFailed):
        watching.watch()


def test_unwritable_state_and_unread_messages_are_ignored(tmp_path):
    def info(_message):
        raise BrokenPipeError("the reader has gone")

    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path / "run"), info, info)
    supervisor.plan.run.make()
    supervisor._write_initial_state()
    supervisor.plan.run.state.unlink()
    supervisor.plan.run.state.mkdir()  # cannot be replaced by a file
    supervisor._set_state("ready", "every model answers")
    supervisor._report_progress("starting")
    assert supervisor.phase == "starting"


def test_undeliverable_message_does_not_block(tmp_path):
    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path / "run"), lambda _: time.sleep(60))
    start = time.monotonic()
    for _ in range(2000):
        supervisor._info("a pipe that nobody empties")
    assert time.monotonic() - start < 5


@pytest.fixture
def surprised(tmp_path, monkeypatch):
    """Return the plan of a run without front end, whose watch loop raises an unexpected error."""

    def start(self):
        self.plan.run.make()
        self._lock = self.plan.run.lock()
        self._write_initial_state()

    def watch(_self):
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(Supervisor, "start", start)
    monkeypatch.setattr(Supervisor, "watch", watch)
    return plan_run(["m"], tmp_path, tmp_path / "run")


def assert_ended(run):
    state = RunState.read(run.state)
    assert state is not None
    assert state.phase == "failed"
    assert "nobody thought of this" in state.message
    assert not (run.path / "tmp").exists()
    run.lock().close()


def test_unexpected_error_in_the_background_ends_the_run(surprised, monkeypatch):
    surprised.run.make()
    surprised.run.plan.write_text(surprised.as_json())
    monkeypatch.setattr(detached_supervisor.sys, "argv", ["supervisor", str(surprised.run.plan)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(ValueError, match="nobody thought of this"):
        detached_supervisor.main()
    assert_ended(surprised.run)


def test_unexpected_error_of_a_server_object_ends_the_run(surprised):
    supervisor = Supervisor(surprised, print)
    supervisor.start()
    with Server(supervisor, ExitStack()) as running:
        running._thread.join()
        assert isinstance(running.failure, ValueError)
        assert_ended(surprised.run)


@pytest.mark.parametrize(
    ("description", "is_removed"),
    [
        (ServerDescription((MODEL,), {}), True),
        (ServerDescription((MODEL,), {"org/odd": "no such route"}), False),
        (ServerDescription((MODEL,), {}, {"slow": "no time"}), False),
        (ServerDescription((replace(MODEL, version="9"),), {}), False),
        (None, False),
    ],
)
def test_unpacked_archive_is_removed_only_if_all_models_are_known(
    watching, tmp_path, description, is_removed
):
    """The unpacked archive of a model that cannot be described must not be removed."""
    folder = tmp_path / "temporary" / "models" / "a"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelVersion": "9"}}')
    os.utime(folder, (1e9, 1e9))
    watching._frontend_supervisor.frontend = SimpleNamespace(temporary=tmp_path / "temporary")
    watching._poller.latest = PollResult(1, time.monotonic(), 0.0, description)
    watching._run_housekeeping()
    assert folder.exists() != is_removed


def test_drain_starts_after_the_delay_and_lasts_for_the_grace(tmp_path, monkeypatch):
    """During the delay, the server reports not ready but still accepts requests."""
    supervisor = Supervisor(plan_run(["m"], tmp_path, tmp_path / "run", grace=33, drain_delay=7), print)
    supervisor.plan.run.make()
    supervisor.plan.run.edge.mkdir()
    supervisor._write_initial_state()
    events = []

    def wait(seconds):
        assert not supervisor.plan.run.draining.exists()
        events.append((supervisor.phase, seconds))

    monkeypatch.setattr(supervisor, "_wait_for_drain_delay", wait)
    monkeypatch.setattr(supervisor_module, "close_listeners", lambda *_: events.append("refused"))
    monkeypatch.setattr(
        supervisor_module, "wait_until_drained", lambda _endpoints, seconds, *_: events.append(seconds)
    )
    supervisor.request_stop()
    supervisor._drain(SimpleNamespace(pid=1))
    assert events == [("stopping", 7), "refused", 33]
    assert supervisor.plan.run.draining.exists()


def test_java_output_is_bounded(watching, tmp_path):
    watching._frontend_supervisor.frontend = SimpleNamespace(temporary=tmp_path / "temporary")
    for path in (watching.plan.run.output, watching.plan.run.supervisor_log):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(log_rotation.MAX_BYTES + 1))
    watching._next_housekeeping = 0.0
    watching._run_housekeeping()
    assert watching.plan.run.output.stat().st_size == 0
    assert watching.plan.run.supervisor_log.stat().st_size == 0
