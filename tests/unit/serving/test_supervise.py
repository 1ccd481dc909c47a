"""How long the end of a run may take, and that it comes in any case."""

import io
import signal

import pytest

from serving import supervise
from serving.plan import plan
from serving.server import Server
from serving.state import State
from serving.supervise import END, GRACE, SHUTDOWN, Supervisor


def test_every_part_of_the_end_fits_one_deadline(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now[0])
    supervisor = Supervisor(plan(["m"], tmp_path, tmp_path), print)
    supervisor.ask_to_stop()
    assert supervisor._at_most(GRACE, SHUTDOWN) == GRACE
    now[0] += 3.0  # a look that was under way
    supervisor.ask_to_stop()  # a second wish moves nothing
    assert supervisor._at_most(GRACE, SHUTDOWN) == pytest.approx(END - 3.0 - SHUTDOWN)
    now[0] += END
    assert supervisor._at_most(SHUTDOWN) == 0.0


@pytest.fixture
def surprised(tmp_path, monkeypatch):
    """A plan whose run has begun, without a front end, and whose watch meets an error that nobody thought of."""

    def start(self):
        self.plan.run.make()
        self._lock = self.plan.run.lock()
        self._begin()

    def watch(_self):
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(Supervisor, "start", start)
    monkeypatch.setattr(Supervisor, "watch", watch)
    return plan(["m"], tmp_path, tmp_path / "run")


def assert_ended(run):
    state = State.read(run.state)
    assert state is not None
    assert state.phase == "failed"
    assert "nobody thought of this" in state.message
    assert not (run.path / "tmp").exists()
    run.lock().close()


def test_a_surprise_in_the_background_ends_the_run(surprised, monkeypatch):
    monkeypatch.setattr(supervise.sys, "stdin", io.StringIO(surprised.as_json()))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(ValueError, match="nobody thought of this"):
        supervise.main()
    assert_ended(surprised.run)


def test_a_surprise_under_a_server_object_ends_the_run(surprised):
    supervisor = Supervisor(surprised, print)
    supervisor.start()
    with Server(supervisor) as running:
        running._thread.join()
        assert isinstance(running.failure, ValueError)
        assert_ended(surprised.run)
