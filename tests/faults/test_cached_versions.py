"""The response cache in front of a real TorchServe whose models change."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.toys import OBEDIENT, toy
from tests.server.fronted import in_front_of, needs_nginx
from torchserve_models import serving
from torchserve_models.client import Client
from torchserve_models.gateway.settings import GatewaySettings

pytestmark = needs_nginx
NAME = "images"
PATH = f"/predictions/{NAME}"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def running(tmp_path_factory, store):
    run_dir = tmp_path_factory.mktemp("run")
    with serving.start([toy(store, NAME, version="1.0")], pack=False, run_dir=run_dir, store=store) as server:
        yield server


@pytest.fixture(scope="module")
def http(running):
    settings = GatewaySettings(cache_bytes=2**20, cache_check_timeout_s=20)
    with (
        in_front_of(running.endpoints, settings) as edge,
        httpx.Client(base_url=edge.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def manage(running):
    with Client(endpoints=running.endpoints, timeout=180) as client:
        yield client


ECHO = """
import json

class Toy:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        hidden = {"x-request-id", "x-request-start", "x-edge-id", "cache-control"}
        answers = []
        for index, fields in enumerate(data):
            headers = {name.lower(): value for name, value in context.get_all_request_header(index).items()}
            shown = {name: value for name, value in headers.items() if name not in hidden}
            answers.append(json.dumps([fields, shown], default=str, sort_keys=True))
        return answers
"""


def answers(http, body: bytes, path: str = PATH) -> tuple[str, str]:
    response = http.post(path, content=body).raise_for_status()
    return response.headers["x-cache"], response.text


def test_a_thousand_requests_for_one_image_compute_once(http):
    """The toy handler counts its requests, so another computation would have another answer."""
    with ThreadPoolExecutor(50) as pool:
        results = Counter(pool.map(lambda _: answers(http, bytes(100_000)), range(1000)))
    (text,) = {text for _, text in results}
    assert results == {("MISS", text): 1, ("HIT", text): 999}


def test_next_answer_is_the_default_versions(http, store, manage):
    _, first = answers(http, b"change")
    assert answers(http, b"change") == ("HIT", first)
    manage.register(f"{toy(store, NAME, version='2.0')}.mar", initial_workers=1)
    assert answers(http, b"change") == ("HIT", first)
    manage.set_default(NAME, "2.0")
    cache, second = answers(http, b"change")
    assert cache == "MISS"
    assert second.split()[0] != first.split()[0]  # the process id of the worker
    manage.set_default(NAME, "1.0")
    assert answers(http, b"change") == ("HIT", first)


def test_version_that_is_replaced_by_another_archive_computes_anew(http, store, manage):
    _, first = answers(http, b"replace", f"{PATH}/2.0")
    assert answers(http, b"replace", f"{PATH}/2.0") == ("HIT", first)
    manage.unregister(NAME, "2.0")
    other = OBEDIENT.replace('f"{os.getpid()} {self.asked}"', '"replaced"')
    manage.register(f"{toy(store, NAME, other, version='2.0')}.mar", initial_workers=1)
    assert answers(http, b"replace", f"{PATH}/2.0") == ("MISS", "replaced")


@pytest.mark.parametrize(
    "path", ["/predictions/echo", "/predictions/echo?a=1&b=%2F", "/v2/models/echo/infer"]
)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_handler_gets_the_request_as_without_the_cache(http, store, manage, path, content_type):
    manage.register(f"{toy(store, 'echo', ECHO, version='1.0')}.mar", initial_workers=1)
    try:
        responses = [
            http.post(path, content=b"{}", headers={"Content-Type": content_type, "Cache-Control": directive})
            for directive in ("no-store", "no-cache")
        ]
    finally:
        manage.unregister("echo")
    assert [response.headers["x-cache"] for response in responses] == ["BYPASS", "MISS"]
    without, cached = (response.raise_for_status().json() for response in responses)
    assert cached == without
