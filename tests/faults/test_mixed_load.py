"""Good and bad requests under load: bad ones get a 4xx, good ones the right answer, and no worker restarts."""

import asyncio
import base64
import functools
import json
import random
from pathlib import Path

import httpx
import pytest

from tests.bombs import icon_bomb, image_bomb, tile_bomb
from torchserve_models.client import Client, ClientError
from training.images import draw_image
from training.reports import draw_example

JSON = {"content-type": "application/json"}


@functools.cache
def bad_requests() -> list[tuple[str, dict]]:
    """Return path and httpx arguments of each invalid request."""
    _, jpeg = draw_image(11, 0)
    image = base64.b64encode(jpeg).decode()
    text = draw_example(11, 0)[0]
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
    texts = [draw_example(12, number)[0].encode() for number in range(2)]
    models = ("t5-small", "bart-large-cnn")
    return images + [(f"/predictions/{model}", {"content": text}) for model in models for text in texts]


def best_result(response: httpx.Response) -> str:
    """Return the most likely label, or the summary."""
    first = response.json()[0]
    return first.get("label") or first["summary_text"]


def processes(server) -> set[int]:
    pids = set()
    for model in ("resnet-50", "t5-small", "bart-large-cnn"):
        (described,) = httpx.get(f"{server.management}/models/{model}", timeout=30).json()
        pids |= {worker["pid"] for worker in described["workers"]}
    return pids


@pytest.mark.parametrize("index", range(len(bad_requests())))
def test_bad_request_is_a_client_error(server, index):
    path, form = bad_requests()[index]
    response = httpx.post(server.inference + path, timeout=60, **form)
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["message" if "v2" not in path else "error"]
    # The next request on the same model is answered.
    good = (
        {"content": draw_image(12, 1)[1]}
        if "resnet" in path
        else {"content": draw_example(12, 1)[0].encode()}
    )
    model = path.split("/")[2] if "v2" not in path else "resnet-50"
    assert httpx.post(f"{server.inference}/predictions/{model}", timeout=60, **good).status_code == 200


@pytest.mark.parametrize("protocol", ["grpc", "open-inference-grpc"])
def test_bad_requests_over_grpc_do_not_restart_the_worker(server, protocol):
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


async def test_sixty_four_concurrent_requests_get_their_answers(server):
    before = processes(server)
    bad = bad_requests()
    rng = random.Random(5)
    # The answers to single requests. Under load, no request may get the answer of another one.
    alone = [httpx.post(server.inference + path, timeout=60, **form) for path, form in good_requests()]
    good = [(*request, best_result(answer)) for request, answer in zip(good_requests(), alone, strict=True)]
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
            assert best_result(response) == expected
    assert processes(server) == before


def reset_peak(pid: int) -> None:
    """Reset the peak memory of a process (clear_refs in proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """Return the peak memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_decompression_bombs_use_little_memory(server):
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


def test_body_over_the_limit_does_not_affect_the_next_request(server):
    before = processes(server)
    with httpx.Client(base_url=server.inference, timeout=60) as client:
        try:
            status = client.post("/predictions/resnet-50", content=b"\0" * 40_000_000).status_code
        except httpx.TransportError:  # the server may close the connection before the end of the body
            status = 413
        assert status == 413
        assert client.post("/predictions/resnet-50", content=draw_image(12, 1)[1]).status_code == 200
    assert processes(server) == before
