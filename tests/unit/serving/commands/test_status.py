"""Tests of scripts/status, with and without an answer of the supervisor."""

import http.server
import json
import threading
from dataclasses import replace

import pytest

from tests.unit.serving.health.observed import CUSTOM, MODEL, NOW, SERVING, snapshot
from tests.unit.serving.run_config.test_state import STATE
from torchserve_models import client
from torchserve_models.client import Endpoints
from torchserve_models.serving.commands import status
from torchserve_models.serving.health import state_report
from torchserve_models.serving.health.model_states import ServerDescription
from torchserve_models.serving.run_config.run_dir import RunDir
from torchserve_models.serving.server import Server


@pytest.fixture
def supervisor():
    """Start a server that answers GET /state with `report`, or with status 500 if there is no report."""

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
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(tmp_path, supervisor):
    """Return the run folder of a ready server whose process ids are those of the test process."""
    run = RunDir(tmp_path)
    endpoints = replace(Endpoints(), health=supervisor.url)
    replace(STATE, phase="ready", frontend=STATE.supervisor, endpoints=endpoints).write(run.state)
    return run


def rewrite(run, **changes):
    state = status.RunState.read(run.state)
    replace(state, **changes).write(run.state)


def surveyed(monkeypatch, *models):
    def describe_server(_connection, _timeout):
        if not models:
            raise client.Timeout("no answer")
        return ServerDescription(models, {})

    monkeypatch.setattr(status, "describe_server", describe_server)


def test_status_is_the_supervisors_report(run, supervisor, capsys):
    busy = replace(SERVING, model=replace(MODEL, queue_waiting=3))
    supervisor.report = state_report.as_json(snapshot(busy), NOW)
    result = status.get_status(run)
    assert result.exit_code == 0
    shown = status.as_json(result)
    assert (shown["ready"], shown["problem"]) == (True, None)
    (model,) = shown["models"]
    assert (model["ready"], model["busy"], model["in_flight"]) == (True, True, 0)
    assert model["queue"] == {"waiting": 3, "free": 10}
    assert model["workers"][0]["ready"]
    status.print_status(result)
    assert "busy" in capsys.readouterr().out


def test_unready_server_has_the_supervisors_reason(run, supervisor, capsys):
    broken = replace(SERVING, model=replace(MODEL, workers=(replace(CUSTOM, alive=False),)))
    supervisor.report = state_report.as_json(snapshot(broken), NOW)
    result = status.get_status(run)
    assert result.exit_code == 1
    assert result.problem == "m: worker 7 has died"
    status.print_status(result)
    assert "lost" in capsys.readouterr().out


@pytest.mark.parametrize("phase", ["starting", "restarting", "stopping"])
def test_starting_or_stopping_server_runs_but_is_not_ready(run, supervisor, phase):
    supervisor.report = state_report.as_json(snapshot(SERVING, phase=phase), NOW)
    rewrite(run, phase="starting", frontend=None)
    result = status.get_status(run)
    assert (result.exit_code, result.problem) == (1, f"the server is {phase}")


@pytest.mark.parametrize("phase", ["ready", "not ready", "stopping"])
def test_dead_front_end_is_restarting(run, supervisor, phase):
    supervisor.report = state_report.as_json(snapshot(SERVING, phase="restarting"), NOW)
    rewrite(run, phase=phase, frontend=replace(STATE.supervisor, started="long ago"))
    result = status.get_status(run)
    assert (result.exit_code, result.problem) == (1, "the server is restarting")


@pytest.mark.parametrize("models", [(replace(MODEL, workers=()),), ()])
def test_silent_supervisor_is_reported_with_the_models(run, monkeypatch, models):
    surveyed(monkeypatch, *models)
    result = status.get_status(run)
    assert result.exit_code == 1
    assert result.problem.startswith("the supervisor does not answer")
    assert [model["name"] for model in result.models] == [model.name for model in models]


def test_missing_supervisor_is_reported(run, monkeypatch):
    surveyed(monkeypatch, MODEL)
    rewrite(run, supervisor=replace(STATE.supervisor, started="long ago"))
    result = status.get_status(run)
    assert result.exit_code == 1
    assert "has ended; run scripts/stop, then scripts/serve" in result.problem


def test_killed_supervisor_with_a_guardian_starts_again(run, monkeypatch):
    surveyed(monkeypatch, MODEL)
    gone = replace(STATE.supervisor, started="long ago")
    rewrite(run, supervisor=gone, frontend=gone, guardian=STATE.supervisor)
    result = status.get_status(run)
    assert result.exit_code == 1
    assert "has ended; it starts again" in result.problem
    rewrite(run, supervisor=gone, frontend=gone, guardian=gone)
    assert status.get_status(run).exit_code == 3


def test_ended_run_is_not_running(tmp_path):
    assert status.get_status(RunDir(tmp_path)).exit_code == 3


def test_server_object_queries_the_supervisor(supervisor, monkeypatch):
    server = object.__new__(Server)
    server.endpoints = replace(Endpoints(), health=supervisor.url)
    for ready in (True, False):
        supervisor.report = {"ready": ready, "models": []}
        assert server.ready() is ready
    supervisor.report = None
    surveyed(monkeypatch, replace(MODEL, workers=(CUSTOM,)))
    assert server.ready()
    surveyed(monkeypatch)
    assert not server.ready()
