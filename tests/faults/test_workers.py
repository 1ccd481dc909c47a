"""Dead worker processes and failed starts: messages, the remaining models, and leftover processes."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.toys import BROKEN_AT_LOAD, KILLED_AT_LOAD, STREAMING, toy
from tests.live_server import alive, free_offset, processes
from torchserve_models import serving
from torchserve_models.client import Client, UnexpectedAnswer
from torchserve_models.paths import ROOT
from torchserve_models.serving.commands import status
from torchserve_models.serving.errors import AlreadyRunning, ModelFailed, PortTaken
from torchserve_models.serving.run_config.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("fast_toys")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Serve two models with one worker each."""
    store, run_dir = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("run")
    names = [toy(store, "first"), toy(store, "second")]
    with serving.start(names, pack=False, run_dir=run_dir, store=store) as running:
        yield running


def order(server, what, model="first"):
    return httpx.post(f"{server.inference}/predictions/{model}", content=what.encode(), timeout=30)


def worker(server, model="first"):
    (described,) = httpx.get(f"{server.management}/models/{model}").json()
    return described["workers"][0]


def living(server, model):
    """Return the process ids of the workers whose processes run."""
    (described,) = httpx.get(f"{server.management}/models/{model}").json()
    pids = {entry["pid"] for entry in described["workers"]}
    return {pid for pid in pids if pid > 0 and psutil.pid_exists(pid) and alive(psutil.Process(pid))}


def until(condition, seconds=30.0):
    """Wait for the condition; return the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - start


def phase(server):
    return json.loads((server.run_dir / "state.json").read_text())["phase"]


def gone(family):
    return not any(alive(process) for process in family)


def command(verb, *arguments, run_dir):
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "torchserve_models",
            verb,
            "--run-dir",
            str(run_dir),
            *map(str, arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_killed_worker_loses_only_its_requests_and_is_replaced(toys):
    assert toys.ready()
    assert phase(toys) == "ready"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running_request = pool.submit(order, toys, "sleep 10")
        time.sleep(0.5)
        queued = pool.submit(order, toys, "")
        time.sleep(0.2)
        victim = worker(toys)["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: not toys.ready())
        until(lambda: phase(toys) == "not ready")  # test_readiness.py checks the delay
        assert status.get_status(RunDir(toys.run_dir)).exit_code == 1
        assert order(toys, "", "second").status_code == 200
        assert running_request.result().json()["message"] == "Worker died."
        assert running_request.result().status_code in (
            500,
            507,
        )  # 507 where Java sees the exit code of SIGKILL in time
        assert queued.result().status_code == 200
    until(toys.ready)
    until(lambda: phase(toys) == "ready")
    assert worker(toys)["pid"] != victim
    assert status.get_status(RunDir(toys.run_dir)).exit_code == 0


def test_client_data_is_not_parsed_as_a_log_line(toys):
    """TorchServe logs the text of a form that it cannot parse, including its line feeds."""
    body = b"x%zz\njava.lang.OutOfMemoryError: y=1"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{toys.inference}/predictions/first", content=body, headers=form, timeout=30)
    assert answer.status_code >= 400
    log = toys.run_dir / "logs" / "server.log"
    until(lambda: "ErrorDataDecoderException\n" in log.read_text())
    assert "OutOfMemoryError" not in log.read_text()
    assert "%zz" not in log.read_text()


def test_worker_that_exits_is_replaced(toys):
    until(toys.ready)
    assert order(toys, "exit", "second").status_code == 500
    until(toys.ready)
    assert order(toys, "", "second").status_code == 200


def test_worker_that_only_torchserve_considers_alive_is_replaced(tmp_path):
    """A unary gRPC call to a streaming model ends the worker's thread, but TorchServe still lists it as READY."""
    toy(tmp_path, "streams", STREAMING)
    with serving.start(["streams"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        lost = worker(server, "streams")["pid"]
        with (
            Client(endpoints=server.endpoints, protocol="grpc", retries=0) as client,
            pytest.raises(UnexpectedAnswer),
        ):
            client.summarize("streams", "")
        until(lambda: not server.ready())
        assert worker(server, "streams")["status"] == "READY"
        until(lambda: living(server, "streams") - {lost})  # for a moment the model has no worker at all
        until(server.ready)
        assert order(server, "", "streams").text == str(worker(server, "streams")["pid"])


def test_lost_worker_is_replaced_and_the_other_stays(tmp_path):
    toy(tmp_path, "streams", STREAMING, workers=2)
    with serving.start(["streams"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        before = living(server, "streams")
        assert len(before) == 2
        with (
            Client(endpoints=server.endpoints, protocol="grpc", retries=0) as client,
            pytest.raises(UnexpectedAnswer),
        ):
            client.summarize("streams", "")
        strict = f"{server.endpoints.health}/readyz?strict=1"
        until(lambda: httpx.get(strict).status_code == 503)
        assert server.ready()  # with one worker
        (survivor,) = before & living(server, "streams")
        until(lambda: httpx.get(strict).status_code == 200)
        assert survivor in living(server, "streams")
        (described,) = httpx.get(f"{server.management}/models/streams").json()
        assert described["minWorkers"] == 2
        assert {order(server, "", "streams").text for _ in range(20)} <= set(
            map(str, living(server, "streams"))
        )


def test_second_start_in_a_run_folder_names_the_first(toys):
    with pytest.raises(AlreadyRunning, match=rf"already running .*process {os.getpid()}.*scripts/stop"):
        serving.start(["first"], pack=False, run_dir=toys.run_dir, store=toys.store)
    assert order(toys, "").status_code == 200


def test_taken_port_is_named_with_its_holder(tmp_path):
    toy(tmp_path, "first")
    with ExitStack() as stack:
        ports = serving.Ports.reserve(stack)
        stack.enter_context(socket.create_server(("127.0.0.1", ports.metrics)))
        with pytest.raises(PortTaken, match=rf"port {ports.metrics} \(metrics\) .*process {os.getpid()}"):
            serving.start(["first"], pack=False, ports=ports, run_dir=tmp_path / "run", store=tmp_path)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["phase"] == "failed"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (BROKEN_AT_LOAD, "ValueError: these weights belong to another architecture"),
        (KILLED_AT_LOAD, "without a traceback"),
    ],
)
def test_model_that_fails_to_load_ends_the_start_with_the_reason(tmp_path, handler, reason):
    names = [toy(tmp_path, "bad", handler), toy(tmp_path, "good")]
    with pytest.raises(ModelFailed, match=f"bad cannot be loaded: .*{reason}") as failure:
        serving.start(names, pack=False, run_dir=tmp_path / "run", store=tmp_path)
    log = Path(str(failure.value).rpartition(": ")[2])
    assert "model_name: bad" in log.read_text()
    mine = [part for process in psutil.process_iter() for part in cmdline(process) if str(tmp_path) in part]
    assert mine == []
    assert not (tmp_path / "run" / "tmp").exists()


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_stop_answers_requests_in_flight(tmp_path):
    toy(tmp_path, "first")
    server = serving.start(["first"], pack=False, run_dir=tmp_path / "run", store=tmp_path)
    family = processes(server)
    assert len(family) == 2
    with concurrent.futures.ThreadPoolExecutor() as pool:
        in_flight = [pool.submit(order, server, "sleep 1") for _ in range(2)]
        time.sleep(0.4)
        server.stop()
        assert [request.result().status_code for request in in_flight] == [200, 200]
    assert gone(family)


def test_detached_server_is_reported_and_stopped_by_the_commands(tmp_path):
    """SIGTERM also ends the server while a worker is busy for longer than the grace period."""
    toy(tmp_path, "first")
    run_dir = tmp_path / "run"
    offset = free_offset()
    started = command(
        "serve", "first", "--detach", "--store", tmp_path, "--port-offset", offset, run_dir=run_dir
    )
    assert started.returncode == 0, started.stderr
    shown = command("status", "--json", run_dir=run_dir)
    assert shown.returncode == 0, shown.stdout
    report = json.loads(shown.stdout)
    assert report["ready"] is True
    (model,) = report["models"]
    assert (model["name"], model["version"]) == ("first", "starter-1a2b3c4d")
    (only,) = model["workers"]
    frontend, supervisor = psutil.Process(report["frontend"]), psutil.Process(report["supervisor"])
    family = [supervisor, frontend, psutil.Process(only["pid"])]
    # Other users must not be able to read settings.
    assert "job_queue_size" not in " ".join(supervisor.cmdline())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        busy = pool.submit(
            httpx.post, f"{report['endpoints']['inference']}/predictions/first", content=b"sleep 60"
        )
        time.sleep(0.5)
        stopped = command("stop", "--now", run_dir=run_dir)
        assert isinstance(busy.exception(), httpx.TransportError)
    assert stopped.returncode == 0, stopped.stderr
    assert gone(family)
    assert not (run_dir / "tmp").exists()
    assert command("stop", run_dir=run_dir).stdout.startswith("nothing runs")
    assert command("status", run_dir=run_dir).returncode == 3


def test_next_start_succeeds_after_a_killed_supervisor(tmp_path):
    toy(tmp_path, "first")
    run_dir = tmp_path / "run"
    offset = free_offset()
    start = ("serve", "first", "--detach", "--store", tmp_path, "--port-offset", offset)
    assert command(*start, run_dir=run_dir).returncode == 0
    report = json.loads(command("status", "--json", run_dir=run_dir).stdout)
    worker_pid = report["models"][0]["workers"][0]["pid"]
    family = [psutil.Process(pid) for pid in (report["supervisor"], report["frontend"], worker_pid)]
    guardian = json.loads((run_dir / "state.json").read_text())["guardian"]["pid"]
    for pid in (guardian, report["supervisor"]):  # the guardian would start the supervisor again
        os.kill(pid, signal.SIGKILL)
    assert command(*start, run_dir=run_dir).returncode == 0
    assert gone(family)
    assert command("status", run_dir=run_dir).returncode == 0
    assert command("stop", run_dir=run_dir).returncode == 0
