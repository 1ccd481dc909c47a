"""scripts/status: what the supervisor says, and what is found out without it."""

import http.server
import json
import threading
from dataclasses import replace

import pytest

from tests.unit.serving.health.test_readiness import FOREIGN, MODEL, NOW, SERVING, snapshot
from tests.unit.serving.run_config.test_state import STATE
from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.commands import status
from torchserve_models.serving.health import state_report
from torchserve_models.serving.health.model_states import Survey
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.server import Server


@pytest.fixture
def supervisor():
    """Answers GET /state with `report`; status 500 without one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        report = None

        def do_GET(self):
            body = json.dumps(self.report).encode()
            self.send_response(200 if self.report else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(tmp_path, supervisor):
    """The run folder of a server that is ready, whose processes are this one."""
    run = RunDir(tmp_path)
    endpoints = replace(Endpoints(), health=supervisor.url)
    replace(STATE, phase="ready", frontend=STATE.supervisor, endpoints=endpoints).write(run.state)
    return run


def rewrite(run, **changes):
    state = status.State.read(run.state)
    replace(state, **changes).write(run.state)


def surveyed(monkeypatch, *models):
    def survey(_connection, _timeout):
        if not models:
            raise client.Timeout("no answer")
        return Survey(models, {})

    monkeypatch.setattr(status, "survey", survey)


def test_the_supervisors_word(run, supervisor, capsys):
    busy = replace(SERVING, model=replace(MODEL, queue_waiting=3))
    supervisor.report = state_report.as_json(snapshot(busy), NOW)
    found = status.get_status(run)
    assert found.exit_code == 0
    shown = status.as_json(found)
    assert (shown["ready"], shown["problem"]) == (True, None)
    (model,) = shown["models"]
    assert (model["ready"], model["busy"], model["in_flight"]) == (True, True, 0)
    assert model["queue"] == {"waiting": 3, "free": 10}
    assert model["workers"][0]["ready"]
    status.print_status(found)
    assert "busy" in capsys.readouterr().out


def test_not_ready_has_the_supervisors_reason(run, supervisor, capsys):
    broken = replace(SERVING, model=replace(MODEL, workers=(replace(FOREIGN, alive=False),)))
    supervisor.report = state_report.as_json(snapshot(broken), NOW)
    found = status.get_status(run)
    assert found.exit_code == 1
    assert found.problem == "m: worker 7 has died"
    status.print_status(found)
    assert "lost" in capsys.readouterr().out


@pytest.mark.parametrize("phase", ["starting", "restarting", "stopping"])
def test_a_server_that_starts_or_stops_runs_and_is_not_ready(run, supervisor, phase):
    supervisor.report = state_report.as_json(snapshot(SERVING, phase=phase), NOW)
    rewrite(run, phase="starting", frontend=None)
    found = status.get_status(run)
    assert (found.exit_code, found.problem) == (1, f"it is {phase}")


@pytest.mark.parametrize("phase", ["ready", "not ready", "stopping"])
def test_a_front_end_that_has_just_died_is_not_taken_for_the_end(run, supervisor, phase):
    supervisor.report = state_report.as_json(snapshot(SERVING, phase="restarting"), NOW)
    rewrite(run, phase=phase, frontend=replace(STATE.supervisor, started="long ago"))
    found = status.get_status(run)
    assert (found.exit_code, found.problem) == (1, "it is restarting")


@pytest.mark.parametrize("models", [(replace(MODEL, workers=()),), ()])
def test_a_supervisor_that_does_not_answer_is_a_problem_and_the_rest_is_shown(run, monkeypatch, models):
    surveyed(monkeypatch, *models)
    found = status.get_status(run)
    assert found.exit_code == 1
    assert found.problem.startswith("its supervisor does not answer")
    assert [model["name"] for model in found.models] == [model.name for model in models]


def test_a_supervisor_that_is_gone_is_named(run, monkeypatch):
    surveyed(monkeypatch, MODEL)
    rewrite(run, supervisor=replace(STATE.supervisor, started="long ago"))
    found = status.get_status(run)
    assert found.exit_code == 1
    assert "is gone; run scripts/stop and start it again" in found.problem


def test_nothing_runs(tmp_path):
    assert status.get_status(RunDir(tmp_path)).exit_code == 3


def test_a_server_object_asks_the_supervisor(supervisor, monkeypatch):
    server = object.__new__(Server)
    server.endpoints = replace(Endpoints(), health=supervisor.url)
    for ready in (True, False):
        supervisor.report = {"ready": ready, "models": []}
        assert server.ready() is ready
    supervisor.report = None
    surveyed(monkeypatch, replace(MODEL, workers=(FOREIGN,)))
    assert server.ready()
    surveyed(monkeypatch)
    assert not server.ready()
