"""Readiness of a real TorchServe: ready under load, and not ready only for models that cannot answer."""

import concurrent.futures
import os
import signal
import statistics
import threading
import time

import httpx
import pytest

from tests.faults.test_workers import until
from tests.faults.toys import BROKEN_AT_LOAD, LOADS_WHEN_ALLOWED, OBEDIENT, REPORTING, toy
from torchserve_models import serving
from torchserve_models.client import Client
from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.nginx.executable import find_nginx
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor
from torchserve_models.serving.health import model_states, worker_recovery

pytestmark = pytest.mark.usefixtures("fast_toys")

BATCH_S = 1.5
"""Duration of one batch of `work`."""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Serve a model whose worker reports its activity, and one whose worker does not."""
    store, run_dir = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("run")
    names = [toy(store, "reports", REPORTING, queue=50, batch=4), toy(store, "silent")]
    with serving.start(names, pack=False, run_dir=run_dir, store=store) as running:
        yield running


def readyz(server, path=""):
    return httpx.get(f"{server.endpoints.health}/readyz{path}", timeout=10).status_code


def state(server, name, version=None):
    models = httpx.get(f"{server.endpoints.health}/state", timeout=10).json()["models"]
    (model,) = [
        model
        for model in models
        if model["name"] == name and (model["default"] if version is None else model["version"] == version)
    ]
    return model


def pid(server, name="reports"):
    return state(server, name)["workers"][0]["pid"]


def order(server, what="", model="reports"):
    return httpx.post(f"{server.inference}/predictions/{model}", content=what.encode(), timeout=60)


def samples(server, name):
    text = httpx.get(f"{server.endpoints.health}/metrics", timeout=10).text
    return [line for line in text.splitlines() if line.startswith(name)]


class Probing:
    """Context manager that probes every 20 ms in the background."""

    def __init__(self, url):
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.statuses: list[int] = []
        self.seconds: list[float] = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        with httpx.Client(timeout=10) as client:
            while not self._over.wait(0.02):
                start = time.perf_counter()
                self.statuses.append(client.get(self._url).status_code)
                self.seconds.append(time.perf_counter() - start)

    @property
    def p99_in_batches(self):
        """The 99th percentile of the probes' times, as a share of the time that one batch of `work` takes."""
        return statistics.quantiles(self.seconds, n=100)[98] / BATCH_S


def work(server, seconds, clients=5, what=f"sleep {BATCH_S}", model="reports"):
    """Send requests with several clients, which wait in the queue behind each other; return the statuses."""
    end = time.monotonic() + seconds

    def client(_):
        statuses = []
        while time.monotonic() < end:
            statuses.append(order(server, what, model).status_code)
        return statuses

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return [status for statuses in pool.map(client, range(clients)) for status in statuses]


@pytest.mark.parametrize("model", ["reports", "silent"])
def test_long_batches_leave_server_ready_and_probes_fast(toys, model):
    until(lambda: readyz(toys) == 200)
    with Probing(f"{toys.endpoints.health}/readyz") as probing:
        statuses = work(toys, 12, model=model)
    assert set(statuses) == {200}
    assert set(probing.statuses) == {200}
    # Usually 5 ms. A probe that waits for a batch takes more than half of the batch.
    assert probing.p99_in_batches < 0.5
    model_state = state(toys, model)
    assert (model_state["ready"], model_state["idle"], model_state["in_flight"]) == (True, True, 0)


def test_gateway_reports_same_readiness_as_fast(toys):
    try:
        find_nginx()
    except NginxError as error:
        pytest.skip(str(error))
    front = NginxConfig(
        http="127.0.0.1:0", grpc="127.0.0.1:0", gateway="127.0.0.1:0", endpoints=toys.endpoints
    )
    with EdgeSupervisor(front, GatewaySettings()) as running:
        gateway = f"http://{running.config.gateway}"
        until(lambda: httpx.get(f"{gateway}/readyz").status_code == 200, 10)
        with Probing(f"{gateway}/readyz") as probing:
            assert set(work(toys, 6)) == {200}
        assert set(probing.statuses) == {200}
        assert probing.p99_in_batches < 0.5
        assert httpx.get(f"{gateway}/readyz/reports").json() == {"ready": True}
        assert httpx.get(f"{gateway}/readyz/absent").status_code == 404
        os.kill(pid(toys), signal.SIGKILL)
        until(lambda: httpx.get(f"{gateway}/readyz").status_code == 503, 5)
        until(lambda: httpx.get(f"{gateway}/v2/models/reports/ready").status_code == 503, 5)
        assert httpx.get(f"{gateway}/v2/models/silent/ready").status_code == 200
        assert httpx.get(f"{gateway}/livez").status_code == 200
        until(lambda: httpx.get(f"{gateway}/ping").status_code == 200)


def test_state_counts_requests_being_computed(toys):
    until(lambda: readyz(toys) == 200)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for model in ("reports", "silent"):
            pending = pool.submit(order, toys, "sleep 3", model)
            until(lambda model=model: state(toys, model)["in_flight"] == 1, 3)
            assert not state(toys, model)["idle"]
            assert pending.result().status_code == 200
            until(lambda model=model: state(toys, model)["idle"], 3)
    assert state(toys, "reports")["workers"][0]["answers"] > 0


@pytest.mark.parametrize("busy", [False, True])
def test_killed_worker_makes_server_unready_within_two_seconds(toys, busy):
    until(lambda: readyz(toys) == 200)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running_request = pool.submit(order, toys, "sleep 5") if busy else None
        time.sleep(1.0)
        victim = pid(toys)
        os.kill(victim, signal.SIGKILL)
        assert until(lambda: readyz(toys) == 503, 10) < 2
        assert readyz(toys, "/silent") == 200
        until(lambda: readyz(toys) == 200)
        assert running_request is None or running_request.result().status_code != 200
    assert pid(toys) != victim
    assert order(toys).text == str(pid(toys))


@pytest.mark.parametrize("model", ["reports", "silent"])
def test_suspended_worker_is_unready_and_replaced(toys, model):
    until(lambda: readyz(toys) == 200)
    victim = pid(toys, model)
    os.kill(victim, signal.SIGSTOP)
    assert until(lambda: readyz(toys) == 503, 10) < 2
    until(lambda: readyz(toys) == 200)
    assert pid(toys, model) != victim
    assert order(toys, model=model).status_code == 200
    kills = f'torchserve_supervisor_worker_kills_total{{model="{model}",reason="suspended"}} 1.0'
    assert kills in samples(toys, "torchserve_supervisor_worker_kills_total")


def test_model_scaled_to_0_and_back_leaves_server_ready(toys):
    until(lambda: readyz(toys) == 200)
    with Client(endpoints=toys.endpoints) as client, Probing(f"{toys.endpoints.health}/readyz") as probing:
        client.scale("silent", 0)
        until(lambda: state(toys, "silent")["workers"] == [], 10)
        time.sleep(1.0)
        assert readyz(toys, "/silent") == 503
        client.scale("silent", 1, synchronous=False)
        until(lambda: readyz(toys, "/silent") == 200)
    assert set(probing.statuses) == {200}


def test_broken_version_and_registration_leave_server_ready(toys):
    until(lambda: readyz(toys) == 200)
    toy(toys.store, "broken", BROKEN_AT_LOAD, version="2")
    toy(toys.store, "added", OBEDIENT.replace("self.asked = 0", "self.asked = time.sleep(4) or 0"))
    with Client(endpoints=toys.endpoints) as client, Probing(f"{toys.endpoints.health}/readyz") as probing:
        client.register("broken.mar", model_name="silent", initial_workers=1, synchronous=False)
        client.register("added.mar", initial_workers=1, synchronous=False)
        until(lambda: readyz(toys, "/added") == 503, 10)
        assert readyz(toys, "/silent/2") == 503
        assert readyz(toys, "?strict=1") == 503
        until(lambda: readyz(toys, "/added") == 200)
        client.unregister("added")
        client.unregister("silent", "2")
        until(lambda: readyz(toys, "?strict=1") == 200)
    assert set(probing.statuses) == {200}


def test_model_that_cannot_be_described_leaves_others_ready(toys):
    until(lambda: readyz(toys) == 200)
    toy(toys.store, "odd")
    # What client.register refuses, others may send.
    registered = httpx.post(
        f"{toys.management}/models",
        params={"url": "odd.mar", "model_name": "org/odd", "initial_workers": 1},
        timeout=60,
    )
    assert registered.status_code == 200
    described = f"{toys.endpoints.health}/state"
    until(lambda: "org/odd" in httpx.get(described).json()["undescribed"], 10)
    assert readyz(toys) == 200
    assert readyz(toys, "?strict=1") == 503
    assert readyz(toys, "/org%2Fodd") == 503
    assert [model.name for model in model_states.inspect(toys.endpoints)] == ["reports", "silent"]
    with Client(endpoints=toys.endpoints, protocol="grpc") as client:
        client.unregister("org/odd")
    until(lambda: readyz(toys, "?strict=1") == 200)


def test_server_is_not_ready_once_a_stop_is_requested(tmp_path):
    toy(tmp_path, "reports", REPORTING)
    server = serving.start(["reports"], pack=False, run_dir=tmp_path / "run", store=tmp_path)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running_request = pool.submit(order, server, "sleep 2")
        time.sleep(0.5)
        stopping = pool.submit(server.stop)
        until(lambda: readyz(server) == 503, 2)
        assert httpx.get(f"{server.endpoints.health}/state").json()["phase"] == "stopping"
        assert not running_request.done()
        assert running_request.result().status_code == 200
        stopping.result()


def test_model_that_torchserve_gave_up_is_revived(tmp_path, monkeypatch):
    """TorchServe stops restarting the worker after maxRetryTimeoutInSec."""
    monkeypatch.setattr(worker_recovery, "GIVEN_UP_TIMEOUT_S", 15.0)
    allowed = tmp_path / "allowed"
    allowed.touch()
    toy(
        tmp_path,
        "moody",
        LOADS_WHEN_ALLOWED.format(allowed=str(allowed)),
        more="maxRetryTimeoutInSec: 3\n",
    )
    with serving.start(["moody"], pack=False, run_dir=tmp_path / "run", store=tmp_path) as server:
        allowed.unlink()
        os.kill(pid(server, "moody"), signal.SIGKILL)
        until(lambda: readyz(server) == 503, 5)
        given_up = 0.0
        while given_up < 8:  # TorchServe's pauses are shorter
            workers = state(server, "moody")["workers"]
            given_up = 0.0 if any(worker["alive"] for worker in workers) else given_up + 0.1
            time.sleep(0.1)
        allowed.touch()
        until(lambda: readyz(server) == 200, 60)
        revivals = samples(server, "torchserve_supervisor_model_revivals_total")
        assert revivals[0].startswith('torchserve_supervisor_model_revivals_total{model="moody"} ')
        assert order(server, model="moody").status_code == 200
        assert state(server, "moody")["min_workers"] == 1
