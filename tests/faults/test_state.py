"""Models, versions, worker counts and default versions survive stops, and SIGKILL of any or all processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.test_restart import snapshot
from tests.faults.test_workers import command, gone, until
from tests.faults.toys import BROKEN_AT_LOAD, VERSION, toy
from tests.live_server import free_offset
from torchserve_models.client import Client, Endpoints
from torchserve_models.paths import ROOT
from torchserve_models.serving.health.model_states import inspect

pytestmark = pytest.mark.usefixtures("fast_toys")

SECOND, THIRD = "starter-5e6f7a8b", "starter-9c0d1e2f"
RECOVERY_S = 30.0


class DetachedServer:
    """Server of `serve --detach` with toy archives in its own store."""

    def __init__(self, folder: Path) -> None:
        self.store, self.run_dir = folder / "store", folder / "run"
        self.store.mkdir()
        self.offset = free_offset()

    def start(self, *names):
        options = ("--no-pack", "--detach", "--store", self.store, "--port-offset", self.offset)
        started = command("serve", *names, *options, run_dir=self.run_dir)
        assert started.returncode == 0, started.stderr
        self.endpoints = Endpoints(**self.state["endpoints"])
        return started.stdout + self.log

    def stop(self):
        assert command("stop", run_dir=self.run_dir).returncode == 0

    @property
    def state(self):
        return json.loads((self.run_dir / "state.json").read_text())

    @property
    def log(self):
        return (self.run_dir / "logs" / "supervisor.log").read_text()

    @property
    def processes(self):
        """The guardian, the supervisor, Java and the workers."""
        state = self.state
        leaders = [psutil.Process(state[key]["pid"]) for key in ("guardian", "supervisor", "frontend")]
        return [*leaders, *leaders[-1].children(recursive=True)]

    @property
    def served(self):
        """Default flag and worker limits of each served version."""
        return {
            (version.name, version.version): (version.default, version.min_workers, version.max_workers)
            for version in inspect(self.endpoints, timeout=10)
        }

    def is_ready(self):
        with suppress(httpx.HTTPError):
            ready = httpx.get(f"{self.endpoints.health}/readyz?strict=1", timeout=1, trust_env=False)
            return ready.status_code == 200
        return False

    def answers(self, path):
        with suppress(httpx.HTTPError):
            url = f"{self.endpoints.inference}/predictions/{path}"
            return httpx.post(url, content=b"", timeout=10).status_code == 200
        return False


@pytest.fixture
def detached(tmp_path):
    server = DetachedServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Return a server whose models, versions, default versions and workers have changed at run time, and these."""
    server = DetachedServer(tmp_path_factory.mktemp("changed"))
    names = [toy(server.store, name) for name in ("first", "second", "third")]
    server.start(*names)
    toy(server.store, "first", version=SECOND)  # takes the place of the archive that is served
    toy(server.store, "late")
    with Client(endpoints=server.endpoints, timeout=60) as manage:
        manage.register("first.mar", model_name="first")
        manage.set_default("first", SECOND)
        manage.register("late.mar", model_name="late")
        manage.scale("second", 2, 3)
        manage.unregister("third")
    expected = server.served
    assert expected == {
        ("first", VERSION): (False, 1, 1),
        ("first", SECOND): (True, 1, 1),
        ("second", VERSION): (True, 2, 3),
        ("late", VERSION): (True, 1, 1),
    }
    until(lambda: snapshot(server) == expected)
    yield server, expected
    server.stop()


def kill_supervisor(server):
    os.kill(server.state["supervisor"]["pid"], signal.SIGKILL)


def kill_java(server):
    os.kill(server.state["frontend"]["pid"], signal.SIGKILL)


def kill_guardian_then_supervisor(server):
    os.kill(server.state["guardian"]["pid"], signal.SIGKILL)
    kill_supervisor(server)
    server.start()


def kill_everything(server):
    for process in server.processes:
        process.kill()
    server.start()


def stop_and_start(server):
    server.stop()
    server.start()


@pytest.mark.parametrize(
    "harm",
    [
        kill_supervisor,
        kill_java,
        kill_guardian_then_supervisor,
        kill_everything,
        stop_and_start,
    ],
)
def test_models_survive(changed, harm):
    server, expected = changed
    until(server.is_ready)
    before = server.processes
    start = time.monotonic()
    harm(server)
    if harm is kill_java:
        before = before[2:]
    elif harm is kill_supervisor:
        before = before[1:]
    until(lambda: gone(before) and server.is_ready(), RECOVERY_S)
    print(f"{harm.__name__}: ready again after {time.monotonic() - start:.1f} s")
    assert server.served == expected
    paths = ("first", f"first/{VERSION}", f"first/{SECOND}", "second", "late")
    assert all(server.answers(path) for path in paths)
    links = sorted(path.name for path in server.store.glob(".versions/*/*.mar"))
    assert links == sorted(f"{name}@{version}.mar" for name, version in expected)
    assert list(server.store.glob(".*.mar")) == []
    until(lambda: snapshot(server) == expected)


def test_next_start_follows_new_archives_and_the_command_line(detached):
    toy(detached.store, "first")
    toy(detached.store, "second", workers=2)
    detached.start()
    with Client(endpoints=detached.endpoints, timeout=60) as manage:
        manage.scale("second", 1, 1)
    scaled = {("second", VERSION): (True, 1, 1)}
    until(lambda: snapshot(detached).items() >= scaled.items())
    detached.stop()
    assert not (detached.store / ".versions").exists()
    toy(detached.store, "first", version=SECOND)
    toy(detached.store, "third")
    assert (
        f"first: version {SECOND} was packed since the last start and replaces version {VERSION}"
        in detached.start()
    )
    assert detached.served == scaled | {("first", SECOND): (True, 1, 1), ("third", VERSION): (True, 1, 1)}
    toy(detached.store, "first", version=THIRD)
    kill_supervisor(detached)  # nothing was requested, so the new archive has to wait
    killed = detached.state["supervisor"]["pid"]
    until(lambda: detached.state["supervisor"]["pid"] != killed and detached.is_ready(), RECOVERY_S)
    assert ("first", SECOND) in detached.served
    detached.stop()
    detached.start("first", "second")
    assert detached.served == scaled | {("first", THIRD): (True, 1, 1)}
    detached.stop()
    detached.start("--fresh")
    assert detached.served == {
        ("first", THIRD): (True, 1, 1),
        ("second", VERSION): (True, 2, 2),
        ("third", VERSION): (True, 1, 1),
    }
    detached.stop()
    assert not (detached.store / ".versions").exists()


def test_versions_that_cannot_be_restored_do_not_stop_others(detached):
    toy(detached.store, "first")
    detached.start("first")
    for name in ("gone", "broken"):
        toy(detached.store, name)
        with Client(endpoints=detached.endpoints, timeout=60) as manage:
            manage.register(f"{name}.mar", model_name=name)
    expected = detached.served
    assert len(expected) == 3
    until(lambda: snapshot(detached) == expected)
    detached.stop()
    (detached.store / "gone.mar").unlink()
    toy(detached.store, "broken", BROKEN_AT_LOAD)
    shown = detached.start("first")
    assert "not ready" in shown
    assert "gone, version starter-1a2b3c4d, could not be reloaded: its archive is no longer in" in shown
    assert "broken cannot be loaded: ValueError: these weights belong to another architecture" in shown
    assert detached.answers("first")
    assert command("status", run_dir=detached.run_dir).returncode == 1
    assert snapshot(detached) == expected  # until the user unregisters them
    with Client(endpoints=detached.endpoints, timeout=60) as manage:
        manage.unregister("broken", force=True)
        toy(detached.store, "gone")
        manage.register("gone.mar", model_name="gone")
    until(detached.is_ready)
    (detached.run_dir / "snapshot.json").write_text('{"schema": 99}')
    for process in detached.processes:
        process.kill()
    assert "schema version is 99" in detached.start("first")
    assert set(detached.served) == {("first", VERSION)}
    assert (detached.run_dir / "snapshot.invalid.json").exists()


def test_guardian_in_the_foreground_restarts_the_server_and_ends_with_it(tmp_path):
    """As in the container image."""
    toy(tmp_path, "first")
    run_dir = tmp_path / "run"
    python = [sys.executable, "-P", "-m"]
    serve = ["serve", "--no-pack", "--store", tmp_path, "--run-dir", run_dir, "--port-offset", free_offset()]
    guardian = subprocess.Popen(
        [*python, "torchserve_models.guardian", *python, "torchserve_models", *map(str, serve)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def supervisor(phase="ready"):
        with suppress(FileNotFoundError):
            state = json.loads((run_dir / "state.json").read_text())
            return state["supervisor"]["pid"] if state["phase"] == phase else None
        return None

    try:
        until(supervisor, 60)
        killed = supervisor()
        os.kill(killed, signal.SIGKILL)
        until(lambda: supervisor() not in (None, killed), RECOVERY_S)
        guardian.terminate()
        assert guardian.wait(timeout=30) == 0
        assert supervisor("stopped")
    finally:
        guardian.kill()
        guardian.wait()
