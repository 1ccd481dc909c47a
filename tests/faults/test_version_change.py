"""Version changes, registrations and scaling under load: no request may be lost.

The environment variable `CHANGES` sets how often each change is repeated.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import httpx
import pytest

from tests.faults.toys import BROKEN_AT_LOAD, OBEDIENT, REPORTING, toy
from torchserve_models import serving
from torchserve_models.client import Client, Conflict, InternalError, InvalidRequest, TorchServeError

pytestmark = pytest.mark.usefixtures("fast_toys")

CHANGES = int(os.environ.get("CHANGES", "2"))
REQUEST_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module", params=[OBEDIENT, REPORTING], ids=["silent workers", "workers that report"])
def handler(request):
    """Return the source of a handler that reports its activity to the supervisor, or of one that does not."""
    return request.param


one_kind_of_worker = pytest.mark.parametrize(
    "handler", [REPORTING], indirect=True, ids=["workers that report"], scope="module"
)
"""For tests whose result does not depend on the kind of handler."""


@pytest.fixture(scope="module")
def running(tmp_path_factory, store, handler):
    names = [toy(store, name, handler, queue=100) for name in ("changed", "other")]
    with serving.start(names, pack=False, run_dir=tmp_path_factory.mktemp("run"), store=store) as server:
        yield server


@pytest.fixture
def client(running):
    with Client(endpoints=running.endpoints, timeout=180) as connection:
        yield connection


class Load:
    """Threads that send requests one after another and count the outcomes."""

    def __init__(self, threads: int, send: Callable[[], str], close: Callable[[], None]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0
        self._send, self._close = send, close
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._close()

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            outcome = self._send()
            with self._lock:
                self.outcomes[outcome] += 1
                self.longest = max(self.longest, time.monotonic() - start)


def raw(server: serving.Server, model: str, threads: int = 8) -> Load:
    """Return a load of plain HTTP requests without retries."""
    connection = httpx.Client(timeout=REQUEST_TIMEOUT_S)
    url = f"{server.inference}/predictions/{model}"

    def send() -> str:
        try:
            response = connection.post(url, content=b"sleep 0.03")
        except httpx.HTTPError as error:
            return repr(error)
        return "answered" if response.status_code == 200 else f"{response.status_code} {response.text}"

    return Load(threads, send, connection.close)


def by_client(server: serving.Server, model: str, threads: int = 8) -> Load:
    """Return a load of client calls, which include retries. The toy's answer is not a list of labels."""
    connection = Client(endpoints=server.endpoints, timeout=REQUEST_TIMEOUT_S)

    def send() -> str:
        try:
            connection.classify(model, b"sleep 0.03")
        except TorchServeError as error:
            return "answered" if error.type == "UnexpectedAnswer" else repr(error)
        return "answered"

    return Load(threads, send, connection.close)


def assert_all_answered(load: Load) -> None:
    assert set(load.outcomes) == {"answered"}, load.outcomes
    assert load.outcomes["answered"] > 20


def test_version_change_loses_no_request(running, client, store, handler):
    with raw(running, "changed") as load, raw(running, "other", threads=1) as other:
        for number in range(CHANGES):
            toy(store, "changed", handler, queue=100, version=f"change-{number}")
            assert f"version change-{number} replaces" in client.replace_model("changed", "changed.mar")
            assert [version.version for version in client.describe_versions("changed")] == [
                f"change-{number}"
            ]
    assert_all_answered(load)
    assert_all_answered(other)


def test_version_that_does_not_load_changes_nothing(running, client, store):
    before = client.describe("changed").version
    toy(store, "changed", BROKEN_AT_LOAD, version="broken")
    with raw(running, "changed", threads=2) as load, pytest.raises(InternalError, match="removed again"):
        client.replace_model("changed", "changed.mar")
    assert [version.version for version in client.describe_versions("changed")] == [before]
    assert_all_answered(load)


@one_kind_of_worker
def test_registration_does_not_block_other_models(running, client, store):
    toy(store, "fresh")
    with raw(running, "other") as load:
        for _ in range(CHANGES):
            assert 'Model "fresh" Version: starter-1a2b3c4d' in client.register("fresh.mar")
            assert (
                httpx.post(f"{running.inference}/predictions/fresh", content=b"", timeout=30).status_code
                == 200
            )
            client.unregister("fresh")
    assert_all_answered(load)


@one_kind_of_worker
def test_slowly_loading_model_blocks_no_connection(running, client, store):
    """No request to another model waits for a load: TorchServe's REST API blocks a network thread meanwhile."""
    loading_s = 5
    toy(store, "slow", OBEDIENT.replace("self.asked = 0", f"self.asked = time.sleep({loading_s}) or 0"))
    with raw(running, "other") as load:
        client.register("slow.mar")
        client.scale("slow", 2)
        client.unregister("slow")
    assert_all_answered(load)
    assert load.longest < loading_s / 2


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_scaling_loses_no_request_of_the_client(running, store, protocol):
    with Client(endpoints=running.endpoints, timeout=180, protocol=protocol) as client:
        with by_client(running, "other") as load:
            for _ in range(CHANGES):
                client.scale("other", 3)
                assert len(client.describe("other").workers) == 3
                client.scale("other", 1, drain_timeout=2)
                assert len(client.describe("other").workers) == 1
        assert_all_answered(load)


def test_version_is_removed_after_its_queued_requests_are_answered(running, client, store, handler):
    old = client.describe("changed").version
    toy(store, "changed", handler, queue=100, version="beside")
    client.register("changed.mar")
    url = f"{running.inference}/predictions/changed/{old}"
    with httpx.Client(timeout=REQUEST_TIMEOUT_S) as http, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(http.post, url, content=b"sleep 8")]
        time.sleep(0.5)  # it is the first
        answers += [pool.submit(http.post, url, content=b"sleep 0.05") for _ in range(19)]
        end = time.monotonic() + 30
        while (client.describe("changed", old).queue_waiting or 0) < 10:
            assert time.monotonic() < end
            time.sleep(0.05)
        client.set_default("changed", "beside")
        client.unregister("changed", old)
        assert [answer.result().status_code for answer in answers] == [200] * 20
    assert [version.version for version in client.describe_versions("changed")] == ["beside"]


@one_kind_of_worker
def test_duplicate_or_invalid_registration_is_rejected(running, client, store):
    with pytest.raises(Conflict, match="already registered"):
        client.register("other.mar")
    with pytest.raises(InvalidRequest, match="Hugging Face"):
        client.register("other.mar", model_name="org/other")
    url = f"{running.management}/models"
    done = httpx.post(url, params={"url": "other.mar", "model_name": "org/other"}, timeout=60)
    assert done.status_code == 200
    assert "org/other" in {entry.name for entry in client.list_models()}
    assert client.ready()
    client.unregister("org/other")
    assert "org/other" not in {entry.name for entry in client.list_models()}
