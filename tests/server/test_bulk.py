"""Many concurrent images to a model with a short queue: the client loses none of them."""

import asyncio
import json
import zipfile
from functools import partial

import pytest
import yaml

from tests.server.fronted import in_front_of, needs_nginx, through
from torchserve_models.cli import main
from torchserve_models.client import PROTOCOLS, AsyncClient, Client, Overloaded
from training.images import draw_image

MODEL = "short-queue"
QUEUE = 4
COUNT = 150
IMAGES = [draw_image(31, index)[1] for index in range(10)]
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def endpoints(server):
    """Register a copy of the image model with a short queue, and return the server's endpoints."""
    archive = server.store / f"{MODEL}.mar"
    with zipfile.ZipFile(server.store / "resnet-50.mar") as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "model-config.yaml":
                changed = yaml.safe_load(content) | {"jobQueueSize": QUEUE, "batchSize": 4}
                content = yaml.safe_dump(changed).encode()
            target.writestr(name, content)
    with Client(endpoints=server.endpoints) as client:
        client.register(archive.name, model_name=MODEL)
        try:
            yield server.endpoints
        finally:
            client.unregister(MODEL)
            archive.unlink()


@pytest.fixture(scope="module")
def expected(endpoints):
    """Return the label of each image, requested one at a time."""
    with Client(endpoints=endpoints) as client:
        return [client.classify(MODEL, image)[0].label for image in IMAGES]


def check(labels, expected):
    assert labels == [expected[number % len(IMAGES)] for number in range(COUNT)]


def inputs():
    return (IMAGES[number % len(IMAGES)] for number in range(COUNT))


async def gather(endpoints, protocol):
    async with AsyncClient(endpoints=endpoints, protocol=protocol) as client:
        answers = await asyncio.gather(*(client.classify(MODEL, image) for image in inputs()))
    return [answer[0].label for answer in answers]


async def test_full_queue_rejects_requests_without_retries_and_limit(endpoints):
    """Checks that the load of the other tests exceeds the queue."""
    async with AsyncClient(endpoints=endpoints, retries=0, max_concurrency=None) as client:
        calls = (client.classify(MODEL, image) for image in inputs())
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(answer, Overloaded) for answer in answers)


@every_protocol
async def test_gather_gets_every_answer(endpoints, expected, protocol):
    check(await gather(endpoints, protocol), expected)


@every_protocol
async def test_map_gets_every_answer(endpoints, expected, protocol):
    async with AsyncClient(endpoints=endpoints, protocol=protocol) as client:
        results = [result async for result in client.map(partial(client.classify, MODEL), inputs())]
    check([result.result()[0].label for result in results], expected)


@pytest.mark.parametrize("ordered", [True, False])
def test_sync_map_gets_every_answer(endpoints, expected, ordered):
    with Client(endpoints=endpoints) as client:
        results = list(client.map(partial(client.classify, MODEL), inputs(), ordered=ordered))
    if not ordered:
        results.sort(key=lambda result: result.index)
    check([result.result()[0].label for result in results], expected)


@needs_nginx
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_map_through_nginx_gets_every_answer(server, endpoints, expected, protocol):
    """nginx answers 429 with Retry-After if the queue is full."""
    with in_front_of(server.endpoints) as front:
        check(await gather(through(front, server), protocol), expected)


@needs_nginx
def test_predict_command_sends_a_folder_through_nginx(server, endpoints, expected, tmp_path, capsys):
    for number, image in enumerate(inputs()):
        (tmp_path / f"{number:03}.jpg").write_bytes(image)
    with in_front_of(server.endpoints) as front:
        assert main(["predict", MODEL, str(tmp_path), "--url", front.url]) == 0
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        records.sort(key=lambda record: record["input"])
        check([record["labels"][0]["label"] for record in records], expected)
        with Client(front.url) as client:
            answer = client.ready(MODEL)
            assert (bool(answer), answer.reason) == (True, "")
            assert client.ready()
