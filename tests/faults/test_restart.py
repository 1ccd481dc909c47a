"""The Java front end is killed, stopped or runs out of memory, and is restarted with the same models."""

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import httpx
import pytest

from tests.faults.test_workers import order, phase, until
from tests.faults.toys import OBEDIENT, toy
from tests.live_server import alive, free_offset, processes
from torchserve_models import serving
from torchserve_models.client import Client
from torchserve_models.paths import ROOT
from torchserve_models.serving.health.model_states import inspect
from torchserve_models.serving.run_config import memory_budget

pytestmark = pytest.mark.usefixtures("fast_toys")

SECOND = "starter-5e6f7a8b"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Start a server and change its models, versions, default versions and workers at run time."""
    store = tmp_path_factory.mktemp("store")
    names = [toy(store, "first"), toy(store, "second"), toy(store, "third")]
    with serving.start(names, pack=False, run_dir=tmp_path_factory.mktemp("run"), store=store) as server:
        until(lambda: (store / ".versions").is_dir())
        toy(store, "first", version=SECOND)  # takes the place of the archive that is served
        toy(store, "late")
        with Client(endpoints=server.endpoints, timeout=60) as manage:
            manage.register("first.mar", model_name="first")
            manage.set_default("first", SECOND)
            manage.register("late.mar", model_name="late")
            manage.scale("second", 2, 3)
            manage.unregister("third")
        expected = served(server)
        until(lambda: snapshot(server) == expected, 60)
        yield server, expected


def served(server):
    """Return default flag and worker limits of each served version."""
    return {
        (version.name, version.version): (version.default, version.min_workers, version.max_workers)
        for version in inspect(server.endpoints, timeout=10)
    }


def snapshot(server):
    content = json.loads((server.run_dir / "snapshot.json").read_text())["versions"]
    return {
        (version["name"], version["version"]): (
            version["default"],
            version["min_workers"],
            version["max_workers"],
        )
        for version in content
    }


def frontend(server):
    return json.loads((server.run_dir / "state.json").read_text())["frontend"]["pid"]


def answers(server, model):
    with suppress(httpx.HTTPError):
        return order(server, "", model).status_code == 200
    return False


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def stop(pid):
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("harm", [kill, stop])
def test_killed_or_stopped_front_end_is_restarted_with_its_models(changed, harm):
    server, expected = changed
    assert expected[("first", SECOND)][0]
    assert expected[("second", "starter-1a2b3c4d")][1:] == (2, 3)
    assert ("third", "starter-1a2b3c4d") not in expected
    assert len(expected) == 4
    before = frontend(server)
    family = processes(server)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in range(4):
            pool.submit(answers, server, "first")
        harm(before)
    until(lambda: frontend(server) != before and phase(server) == "ready", 180)
    assert served(server) == expected
    assert all(
        answers(server, model)
        for model in ("first", f"first/{SECOND}", "first/starter-1a2b3c4d", "second", "late")
    )
    assert not any(alive(process) for process in family)
    assert sorted(path.name for path in server.store.glob("*.mar")) == [
        f"{name}.mar" for name in ("first", "late", "second", "third")
    ]
    assert [path for path in server.store.iterdir() if path.name.startswith(".first")] == []


def test_acknowledged_change_survives_an_immediate_kill(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    toy(store, "first")
    with serving.start(["first"], pack=False, run_dir=tmp_path / "run", store=store) as server:
        toy(store, "first", version=SECOND)
        with Client(endpoints=server.endpoints, timeout=60) as manage:
            manage.replace_model("first", "first.mar")
            before = frontend(server)
            kill(before)
        until(lambda: frontend(server) != before and phase(server) == "ready", 120)
        assert served(server) == {("first", SECOND): (True, 1, 1)}


def test_model_that_cannot_be_restored_leaves_others_served(tmp_path):
    names = [toy(tmp_path, "first"), toy(tmp_path, "second")]
    with serving.start(names, pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        until(lambda: (server.run_dir / "snapshot.json").exists())
        shutil.rmtree(tmp_path / ".versions")
        (tmp_path / "second.mar").write_bytes(b"no archive")
        kill(frontend(server))
        until(lambda: answers(server, "first"), 120)
        until(
            lambda: (
                "second starter-1a2b3c4d: not loaded again"
                in json.loads((server.run_dir / "state.json").read_text())["message"]
            )
        )
        assert phase(server) == "not ready"
        toy(tmp_path, "second")
        with Client(endpoints=server.endpoints, timeout=60) as manage:
            manage.register("second.mar", model_name="second")
        until(lambda: phase(server) == "ready", 60)


def probe(server, path):
    return httpx.get(server.endpoints.health + path, trust_env=False).status_code


def test_lost_default_version_is_reported(tmp_path):
    first = "starter-1a2b3c4d"
    names = [toy(tmp_path, "first"), toy(tmp_path, "second")]
    with serving.start(names, pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        with Client(endpoints=server.endpoints, timeout=60) as manage:
            toy(tmp_path, "first", version=SECOND)
            manage.register("first.mar", model_name="first")
            manage.set_default("first", SECOND)
            until(lambda: snapshot(server).get(("first", SECOND), [False])[0])
            shutil.rmtree(tmp_path / ".versions")
            toy(tmp_path, "first")
            before = frontend(server)
            kill(before)
            statuses = set()
            until(
                lambda: (
                    statuses.add(probe(server, "/readyz/first"))
                    or (frontend(server) != before and probe(server, f"/readyz/first/{first}") == 200)
                ),
                120,
            )
            until(lambda: probe(server, "/readyz/second") == 200, 60)
            assert statuses <= {200, 503}  # never 404
            assert [probe(server, path) for path in ("/readyz", "/readyz/first")] == [503, 503]
            assert snapshot(server)["first", SECOND][0]
            manage.set_default("first", first)
        until(lambda: probe(server, "/readyz/first") == 200 and probe(server, "/readyz") == 200)
        assert snapshot(server)["first", first][0]


def test_bodies_beyond_memory_end_in_answers_or_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_budget, "memory_limit", lambda: (4 * memory_budget.GIB, True))
    toy(tmp_path, "first", queue=100)
    body = b"x" * (16 * 2**20 - 100)
    results = Counter()

    def send(url):
        try:
            results[httpx.post(url, content=body, timeout=30).status_code] += 1
        except httpx.HTTPError as error:
            results[type(error).__name__] += 1

    with serving.start(["first"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        before = frontend(server)
        with concurrent.futures.ThreadPoolExecutor(120) as pool:
            pool.submit(order, server, "sleep 5")
            list(pool.map(lambda _: send(f"{server.inference}/predictions/first"), range(120)))
        assert sum(results.values()) == 120
        log = (server.run_dir / "logs" / "server.log").read_text()
        if "java.lang.OutOfMemoryError" in log:  # the restart comes when the errors have stopped
            until(lambda: frontend(server) != before)
        until(lambda: answers(server, "first"), 120)
        until(lambda: phase(server) == "ready", 120)
        assert answers(server, "first")


COMMAND = [sys.executable, "-P", "-m", "torchserve_models", "serve", "first", "--no-pack"]


@pytest.mark.parametrize("log", ["pipe", "/dev/full"])
def test_unwritable_log_does_not_end_the_server(tmp_path, log):
    toy(tmp_path, "first")
    run_dir, offset = tmp_path / "run", free_offset()
    full = open("/dev/full", "w") if log == "/dev/full" else None  # noqa: SIM115
    server = subprocess.Popen(
        [*COMMAND, "--run-dir", run_dir, "--store", tmp_path, "--port-offset", str(offset)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"},
        stdout=full or subprocess.PIPE,
        stderr=full or subprocess.PIPE,
    )
    try:
        for stream in (server.stdout, server.stderr):
            if stream is not None:
                stream.close()
        state = run_dir / "state.json"
        until(lambda: state.exists() and json.loads(state.read_text())["phase"] == "ready", 120)
        url = json.loads(state.read_text())["endpoints"]["inference"] + "/predictions/first"
        worker = int(httpx.post(url, content=b"").text.split()[0])
        kill(worker)
        until(lambda: json.loads(state.read_text())["phase"] == "not ready")
        until(lambda: json.loads(state.read_text())["phase"] == "ready", 60)
        assert httpx.post(url, content=b"").status_code == 200
        assert server.poll() is None
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        assert json.loads(state.read_text())["phase"] == "stopped"
    finally:
        server.kill()
        server.wait()
        if full is not None:
            full.close()


# Reports its activity as our handlers do, and refuses what arrives while the server drains.
REPORTING = OBEDIENT.replace(
    "    def handle(self, data, context):\n",
    """    def handle(self, data, context):
        import struct
        path = os.path.join(os.environ["WORKER_ACTIVITY_DIR"], str(os.getpid()))
        def report(started):
            now = time.monotonic()
            with open(path, "wb") as file:
                file.write(struct.pack("<4d3Q", now, started, started, now, len(data), self.asked, self.asked))
        report(time.monotonic())
        try:
            if os.path.exists(os.path.join(os.environ["EDGE_EVENTS_DIR"], "draining")):
                draining = "draining "
            else:
                draining = "serving "
            return [draining + answer for answer in self.answer(data)]
        finally:
            report(0.0)

    def answer(self, data):
""",
)


def test_stop_under_load_answers_every_accepted_request(tmp_path):
    toy(tmp_path, "first", REPORTING, queue=100)
    server = serving.start(["first"], pack=False, run_dir=tmp_path / "run", store=tmp_path)
    statuses, broken, refused = [], [], []
    over = []

    def send():
        while not over:
            try:
                statuses.append(order(server, "sleep 0.2").status_code)
            except httpx.ConnectError:
                refused.append(1)
                return
            except httpx.HTTPError as error:
                broken.append(error)
                return

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(send) for _ in range(8)]
        time.sleep(2)
        server.stop()
        over.append(True)
        concurrent.futures.wait(sending)
    assert set(statuses) == {200}
    assert len(statuses) >= 8
    if refused:  # where the system lets the listening sockets be closed, nothing is cut off
        assert broken == []
