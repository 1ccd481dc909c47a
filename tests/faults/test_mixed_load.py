"""Sixty-four requests at once, a fifth of them bad: every bad one 4xx, every good one right, no worker restarted."""

import asyncio
import base64
import json
import random
from pathlib import Path

import httpx
import pytest

from tests.bombs import icon_bomb, image_bomb, tile_bomb
from torchserve_models.client import Client, ClientError
from training.images import draw_image
from training.reports import report

JSON = {"content-type": "application/json"}


def bad_requests() -> list[tuple[str, dict]]:
    """The ways of being wrong that a client can find, without neighbors noticing."""
    _, jpeg = draw_image(11, 0)
    image = base64.b64encode(jpeg).decode()
    text = report(11, 0)[0]
    images = [
        {"content": b""},
        {"content": b"plain text, not an image"},
        {"content": jpeg[: len(jpeg) // 3]},
        {"content": image_bomb()},
        {"content": b"{", "headers": JSON},
        {"content": b"[" * 50_000, "headers": JSON},
        {"json": [1, 2]},
        {"json": {}},
        {"json": {"inputs": 7}},
        {"json": {"inputs": "no base64!"}},
        {"files": {"photo": jpeg}},
        {"json": {"inputs": image, "parameters": {"top_k": 0}}},
        {"json": {"inputs": image, "parameters": {"top_k": "many"}}},
        {"json": {"inputs": image, "parameters": {"color": "red"}}},
        {"content": jpeg, "headers": {"content-encoding": "gzip"}},
        {"data": {"image": ""}},
    ]
    tensors = [
        {"inputs": []},
        {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": [image]}]},
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["?"]}]},
        {"inputs": [{"name": "image", "shape": [1], "datatype": "STRING", "data": [image]}]},
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}] * 2},
        {"inputs": [{"name": "image", "shape": [2, 2, 3], "datatype": "UINT8", "data": [300] * 12}]},
    ]
    texts = [
        {"content": b""},
        {"content": b"   \n\t "},
        {"content": b"\xff\xfe\xfa"},
        {"content": b'{"inputs": "\\ud800"}', "headers": JSON},
        {"json": {"inputs": text, "parameters": {"num_beams": -1}}},
        {"json": {"inputs": text, "parameters": {"max_length": 1e9}}},
        {
            "content": json.dumps({"inputs": text, "parameters": {"length_penalty": float("nan")}}),
            "headers": JSON,
        },
        {"json": {"inputs": text, "parameters": {"min_length": 90, "max_length": 20}}},
        {"json": {"inputs": text, "parameters": {"num_beams": "4"}}},
        {"json": {"inputs": text * 60, "parameters": {"truncation": False}}},
        {"json": {"inputs": "a" * 1_500_000}},
    ]
    return (
        [("/predictions/resnet-50", form) for form in images]
        + [("/v2/models/resnet-50/infer", {"json": form}) for form in tensors]
        + [(f"/predictions/{model}", form) for model in ("t5-small", "bart-large-cnn") for form in texts]
    )


def good_requests() -> list[tuple[str, dict]]:
    images = [("/predictions/resnet-50", {"content": draw_image(12, number)[1]}) for number in range(20)]
    texts = [report(12, number)[0].encode() for number in range(2)]
    models = ("t5-small", "bart-large-cnn")
    return images + [(f"/predictions/{model}", {"content": text}) for model in models for text in texts]


def gist(response: httpx.Response) -> str:
    """The likeliest label, or the summary."""
    first = response.json()[0]
    return first.get("label") or first["summary_text"]


def processes(server) -> set[int]:
    pids = set()
    for model in ("resnet-50", "t5-small", "bart-large-cnn"):
        (described,) = httpx.get(f"{server.management}/models/{model}", timeout=30).json()
        pids |= {worker["pid"] for worker in described["workers"]}
    return pids


@pytest.mark.parametrize("place", range(len(bad_requests())))
def test_each_bad_request_is_answered_as_the_clients_error(server, place):
    path, form = bad_requests()[place]
    response = httpx.post(server.inference + path, timeout=60, **form)
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["message" if "v2" not in path else "error"]
    # The next request on the same model is answered.
    good = {"content": draw_image(12, 1)[1]} if "resnet" in path else {"content": report(12, 1)[0].encode()}
    model = path.split("/")[2] if "v2" not in path else "resnet-50"
    assert httpx.post(f"{server.inference}/predictions/{model}", timeout=60, **good).status_code == 200


@pytest.mark.parametrize("protocol", ["grpc", "open-inference-grpc"])
def test_bad_requests_over_grpc_leave_the_worker_as_it_was(server, protocol):
    before = processes(server)
    _, jpeg = draw_image(12, 1)
    with Client(endpoints=server.endpoints, protocol=protocol, retries=0) as connection:
        for call in (
            lambda: connection.classify("resnet-50", b"no image"),
            lambda: connection.classify("resnet-50", jpeg[:200]),
            lambda: connection.classify("resnet-50", jpeg, top_k=0),
            lambda: connection.classify("resnet-50", jpeg, color="red"),
            lambda: connection.classify("resnet-50", image_bomb()),
            lambda: connection.summarize("t5-small", "  "),
            lambda: connection.summarize("t5-small", "text", num_beams=-1),
            lambda: connection.summarize("bart-large-cnn", "word " * 5000, truncation=False),
        ):
            with pytest.raises(ClientError):
                call()
            assert connection.classify("resnet-50", jpeg)
    assert processes(server) == before


async def test_sixty_four_at_once(server):
    before = processes(server)
    bad = bad_requests()
    rng = random.Random(5)
    # What each answers alone: the numbers are tested elsewhere, here none may get another's.
    alone = [httpx.post(server.inference + path, timeout=60, **form) for path, form in good_requests()]
    good = [(*request, gist(answer)) for request, answer in zip(good_requests(), alone, strict=True)]
    jobs: list[tuple[str, dict, str | None]] = [(*rng.choice(bad), None) for _ in range(52)]
    jobs += [good[number % len(good)] for number in range(208)]
    rng.shuffle(jobs)
    limit = asyncio.Semaphore(64)
    limits = httpx.Limits(max_connections=64)

    async with httpx.AsyncClient(base_url=server.inference, timeout=120, limits=limits) as client:

        async def send(path: str, form: dict) -> httpx.Response:
            async with limit:
                return await client.post(path, **form)

        responses = await asyncio.gather(*(send(path, form) for path, form, _ in jobs))
    for (path, _, expected), response in zip(jobs, responses, strict=True):
        if expected is None:
            assert 400 <= response.status_code < 500, (path, response.status_code, response.text[:200])
        else:
            assert response.status_code == 200, (path, response.text[:200])
            assert gist(response) == expected
    assert processes(server) == before


def reset_peak(pid: int) -> None:
    """From here on, Linux keeps the highest memory anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most memory that the process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_a_bomb_costs_no_memory(server):
    (described,) = httpx.get(f"{server.management}/models/resnet-50", timeout=30).json()
    pids = [worker["pid"] for worker in described["workers"]]
    for pid in pids:
        reset_peak(pid)
    before = sum(map(peak, pids))
    for data in (image_bomb(), tile_bomb()):
        response = httpx.post(f"{server.inference}/predictions/resnet-50", content=data, timeout=30)
        assert response.status_code == 413
    response = httpx.post(f"{server.inference}/predictions/resnet-50", content=icon_bomb(), timeout=30)
    assert response.status_code == 400
    assert sum(map(peak, pids)) - before < 100e6


def test_a_body_over_the_limit_then_a_good_one(server):
    before = processes(server)
    with httpx.Client(base_url=server.inference, timeout=60) as client:
        try:
            status = client.post("/predictions/resnet-50", content=b"\0" * 40_000_000).status_code
        except httpx.TransportError:  # the server may close while we still send
            status = 413
        assert status == 413
        assert client.post("/predictions/resnet-50", content=draw_image(12, 1)[1]).status_code == 200
    assert processes(server) == before
