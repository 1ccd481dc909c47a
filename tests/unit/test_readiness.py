"""Equal readiness verdicts of the client, the supervisor and the gateway for every state of a server."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tests.unit.serving.health.observed import (
    COMPUTING,
    CUSTOM,
    DEAD,
    IDLE,
    LOADING,
    MODEL,
    NEW,
    NOW,
    READY,
    SERVING,
    STARTING,
    snapshot,
    workers,
)
from torchserve_models.client import AsyncClient, Client, Endpoints, ModelNotFound, Overloaded
from torchserve_models.gateway.probes import ProbeRoutes
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.responses import handle_error
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis
from torchserve_models.serving.health import http_server, model_probe, model_states
from torchserve_models.serving.health.archive_origin import ArchiveOrigin
from torchserve_models.serving.health.observations import ServerObservation, Version

PID = os.getpid()
QUERIES = [
    (name, version, strict)
    for name, version in ((None, None), ("m", None), ("m", "1"), ("m", "2"), ("n", None), ("absent", None))
    for strict in (False, True)
]
"""Model, version and strictness of each readiness query; None selects the whole server."""

NOT_FOUND = "not found"
Verdicts = Mapping[tuple[str | None, str | None, bool], str | None]
"""The answer to each query: None if ready, otherwise the reason, or NOT_FOUND."""


@pytest.fixture
def at_now(monkeypatch):
    """Set the supervisor's clock to NOW."""
    monkeypatch.setattr(http_server, "time", SimpleNamespace(monotonic=lambda: NOW))


# States that TorchServe's description shows to the client, the supervisor and the gateway.


def version(number: str, min_workers: int, *workers: str, waiting: int = 0) -> dict[str, Any]:
    """Describe a version; `workers`: "ready", "loading" (has a process) or "starting" (has none)."""
    return {
        "modelName": "m", "modelVersion": number, "modelUrl": "m.mar", "minWorkers": min_workers,
        "maxWorkers": max(min_workers, 3), "batchSize": 1, "maxBatchDelay": 1, "responseTimeout": 60,
        "startupTimeout": 60, "jobQueueStatus": {"remainingCapacity": 9, "pendingRequests": waiting},
        "workers": [
            {
                "id": str(9000 + index),
                "status": "READY" if state == "ready" else "UNLOADING",
                "pid": -1 if state == "starting" else PID,
            }
            for index, state in enumerate(workers)
        ],
    }  # fmt: skip


ONE = version("1", 1, "ready")
SECOND = version("2", 1, "ready")


class TorchServe:
    """A fake management API. A model is a list of versions, the default version first, or an error status."""

    def __init__(self, models: Mapping[str, Any], new_default: Any = None) -> None:
        self._models = models
        self._new_default = new_default
        """The version that becomes the default one after all versions have been described."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        match request.url.path.split("/")[1:]:
            case ["models"]:
                entries = [{"modelName": name, "modelUrl": f"{name}.mar"} for name in self._models]
                return httpx.Response(200, json={"models": entries})
            case ["models", name, *number] if name in self._models:
                versions = self._models[name]
                if isinstance(versions, int):
                    type_ = {404: "ModelNotFoundException", 500: "InternalServerException"}[versions]
                    message = {"code": versions, "type": type_, "message": "no description"}
                    return httpx.Response(versions, json=message)
                if number == ["all"]:
                    return httpx.Response(
                        200, json=[{**description, "modelName": name} for description in versions]
                    )
                if not number:
                    chosen = [self._new_default or versions[0]]
                else:
                    chosen = [item for item in versions if item["modelVersion"] == number[0]]
                if chosen:
                    return httpx.Response(200, json=[{**chosen[0], "modelName": name}])
                type_ = "ModelVersionNotFoundException"
                missing = f"Model version: {number[0]} does not exist for model: {name}"
                return httpx.Response(404, json={"code": 404, "type": type_, "message": missing})
        type_ = "ModelNotFoundException"
        return httpx.Response(404, json={"code": 404, "type": type_, "message": "Model not found: absent"})


def ask_client(torchserve: TorchServe) -> Verdicts:
    verdicts: dict[Any, str | None] = {}
    with Client(transport=httpx.MockTransport(torchserve), retries=0) as client:
        for name, number, strict in QUERIES:
            try:
                readiness = client.ready(name, number, strict=strict)
                verdicts[name, number, strict] = readiness.reason if not readiness else None
            except ModelNotFound:
                verdicts[name, number, strict] = NOT_FOUND
    return verdicts


class StateSource:
    """The state source of the supervisor's HTTP server."""

    def __init__(self, snapshot: ServerObservation) -> None:
        self._snapshot = snapshot

    def snapshot(self) -> ServerObservation:
        return self._snapshot

    refreshed = snapshot

    def get(self, path: str) -> httpx.Response:
        status, _, body = http_server.handle_get(self, path)  # type: ignore[arg-type]
        return httpx.Response(status, content=body)


def path_of(name: str | None, number: str | None, strict: bool) -> str:
    segments = [segment for segment in ("readyz", name, number) if segment is not None]
    return "/" + "/".join(segments) + ("?strict=1" if strict else "")


def ask_supervisor(source: StateSource) -> Verdicts:
    verdicts: dict[Any, str | None] = {}
    for question in QUERIES:
        response = source.get(path_of(*question))
        verdicts[question] = NOT_FOUND if response.status_code == 404 else response.json().get("reason")
        assert (response.status_code == 200) == (verdicts[question] is None)
    return verdicts


def observe(torchserve: TorchServe) -> StateSource:
    """Return a supervisor's observation of the described models, whose workers are not its child processes."""
    with Client(transport=httpx.MockTransport(torchserve), retries=0) as client:
        description = model_states.describe_server(client)
    versions = tuple(Version(model, model.min_workers) for model in description.models)
    return StateSource(snapshot(*versions, undescribed=description.undescribed))


async def ask_gateway(answer: Any) -> Verdicts:
    """Query a gateway's poller; `answer` returns the responses of the supervisor and the management API."""
    transport = httpx.MockTransport(answer)
    async with AsyncClient(transport=transport, retries=0) as client:
        poller = ReadinessPoller("http://supervisor", client, transport=transport)
        await poller.poll()
        verdicts: dict[Any, str | None] = {}
        for name, number, strict in QUERIES:
            try:
                verdicts[name, number, strict] = (
                    poller.server_problem(strict)
                    if name is None
                    else poller.model_problem(name, number, strict)
                )
            except ModelNotFound:
                verdicts[name, number, strict] = NOT_FOUND
        await poller.close()
    return verdicts


def without_supervisor(torchserve: TorchServe) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "supervisor":
            raise httpx.ConnectError("refused")
        return torchserve(request)

    return answer


@pytest.mark.parametrize(
    ("models", "server", "strict_server", "model", "strict_model"),
    [
        pytest.param({"m": [ONE]}, True, True, True, True, id="one of one worker ready"),
        pytest.param({"m": [version("1", 1, "loading")]}, False, False, False, False, id="loading"),
        pytest.param({"m": [version("1", 1, "starting")]}, False, False, False, False, id="being started"),
        pytest.param({"m": [version("1", 1)]}, False, False, False, False, id="no worker although one is desired"),
        pytest.param(
            {"m": [version("1", 2, "ready", "loading")]}, True, False, True, False, id="one of two workers ready"
        ),
        pytest.param({"m": [version("1", 2, "ready")]}, True, False, True, False, id="one of two workers gone"),
        pytest.param(
            {"m": [version("1", 2, "ready", "ready", "starting")]},
            True, True, True, True,
            id="two desired workers ready and a third starting",
        ),
        pytest.param(
            {"m": [version("1", 3, "ready", "ready", "loading")]}, True, False, True, False, id="being scaled up"
        ),
        pytest.param(
            {"m": [version("1", 1, "ready", "loading")]}, True, True, True, True, id="a surplus worker is ending"
        ),
        pytest.param({"m": [version("1", 0)]}, True, True, False, False, id="scaled to 0"),
        pytest.param({"m": [version("1", 0, "ready")]}, True, True, True, True, id="last worker not yet ended"),
        pytest.param({"m": [version("1", 0)], "n": [ONE]}, True, True, False, False, id="another model scaled to 0"),
        pytest.param(
            {"m": [ONE, version("2", 0)]}, True, True, True, True, id="non-default version scaled to 0"
        ),
        pytest.param(
            {"m": [version("1", 0), SECOND]}, True, True, False, False, id="default version scaled to 0"
        ),
        pytest.param({"m": [ONE, SECOND]}, True, True, True, True, id="two versions ready"),
        pytest.param(
            {"m": [ONE, version("2", 1, "loading")]}, True, False, True, True, id="non-default version loading"
        ),
        pytest.param(
            {"m": [version("1", 1, "loading"), SECOND]}, False, False, False, False, id="default version loading"
        ),
        pytest.param(
            {"m": [ONE], "n": [version("1", 1, "loading")]}, False, False, True, True, id="another model loading"
        ),
        pytest.param({"m": [version("1", 1, "ready", waiting=100)]}, True, True, True, True, id="full queue"),
        pytest.param({"m": [ONE], "n": 404}, True, False, True, True, id="unregistered in between"),
        pytest.param({"m": [ONE], "n": 500}, True, False, True, True, id="another model cannot be described"),
        pytest.param({"n": 500}, False, False, None, None, id="no model can be described"),
        pytest.param({}, False, False, None, None, id="no model"),
    ],
)  # fmt: skip
def test_described_state_has_one_verdict(at_now, models, server, strict_server, model, strict_model):
    """`model` is the verdict on the default version of m; None if m is not registered."""
    torchserve = TorchServe(models)
    verdicts = ask_client(torchserve)
    expected = {
        (None, None, False): server,
        (None, None, True): strict_server,
        ("m", None, False): model,
        ("m", None, True): strict_model,
    }
    assert {
        question: None if verdicts[question] == NOT_FOUND else verdicts[question] is None
        for question in expected
    } == expected
    assert verdicts["absent", None, False] == NOT_FOUND
    if model is not None:
        with Client(transport=httpx.MockTransport(torchserve), retries=0) as client:
            assert client.describe("m").ready == model
    gateway = asyncio.run(ask_gateway(without_supervisor(torchserve)))
    assert gateway == ask_supervisor(observe(torchserve))
    # The client asks TorchServe directly for a named model, so that the reason is TorchServe's.
    undescribed = {
        question for question in QUERIES if question[0] == "n" and isinstance(models.get("n"), int)
    }
    assert {question: verdicts[question] for question in QUERIES if question not in undescribed} == {
        question: gateway[question] for question in QUERIES if question not in undescribed
    }
    assert all(verdicts[question] and gateway[question] for question in undescribed)


def test_default_version_that_changes_between_two_calls_is_known(at_now):
    torchserve = TorchServe({"m": [ONE, SECOND]}, new_default=version("3", 1, "loading"))
    gateway = asyncio.run(ask_gateway(without_supervisor(torchserve)))
    assert gateway == ask_supervisor(observe(torchserve))
    assert gateway["m", None, False] == ask_client(torchserve)["m", None, False]
    assert gateway["m", None, False] == f"worker {PID} is loading the model"


# States that only a supervisor observes. The gateway asks it, and the client asks the gateway.

OTHER = replace(SERVING, model=replace(MODEL, version="2", default=False))
LOST = {("m", "2"): "its archive is gone"}


async def ask_client_of_gateway(source: StateSource) -> Verdicts:
    """Ask a gateway's probe routes through the client."""
    transport = httpx.MockTransport(lambda request: source.get(request.url.path))
    async with AsyncClient(transport=transport, retries=0) as management:
        poller = ReadinessPoller("http://supervisor", management, transport=transport)
        await poller.poll()
        app = Starlette(routes=ProbeRoutes(poller).routes(), exception_handlers={ModelNotFound: handle_error})
        endpoints = Endpoints.gateway("http://gateway:8000")
        verdicts: dict[Any, str | None] = {}
        async with AsyncClient(endpoints=endpoints, transport=httpx.ASGITransport(app), retries=0) as client:
            for name, number, strict in QUERIES:
                try:
                    readiness = await client.ready(name, number, strict=strict)
                    verdicts[name, number, strict] = readiness.reason if not readiness else None
                except ModelNotFound:
                    verdicts[name, number, strict] = NOT_FOUND
        await poller.close()
    return verdicts


@pytest.mark.parametrize(
    ("state", "server", "strict_server", "model"),
    [
        pytest.param(snapshot(SERVING), True, True, True, id="idle"),
        pytest.param(snapshot(workers(replace(READY, activity=COMPUTING))), True, True, True, id="a batch of 19 s"),
        pytest.param(
            snapshot(replace(SERVING, model=replace(MODEL, queue_waiting=10, queue_free=0))),
            True, True, True, id="full queue",
        ),
        pytest.param(snapshot(workers(DEAD)), False, False, False, id="zombie"),
        pytest.param(snapshot(workers(READY, DEAD, min_workers=2)), True, False, True, id="one of two is a zombie"),
        pytest.param(snapshot(workers(READY, READY, STARTING, min_workers=2)), True, True, True, id="third starting"),
        pytest.param(snapshot(workers(replace(READY, stopped=True))), False, False, False, id="suspended"),
        pytest.param(
            snapshot(workers(replace(READY, activity=replace(IDLE, heartbeat=NOW - 6)))),
            False, False, False, id="no heartbeat",
        ),
        pytest.param(
            snapshot(workers(replace(READY, activity=replace(COMPUTING, heartbeat=NOW - 6)))),
            False, False, False, id="no heartbeat in a batch",
        ),
        pytest.param(
            snapshot(workers(replace(READY, activity=replace(COMPUTING, progress=NOW - 61)))),
            False, False, False, id="no progress",
        ),
        pytest.param(snapshot(workers(LOADING)), False, False, False, id="loading after a restart"),
        pytest.param(snapshot(workers(STARTING)), False, False, False, id="waiting for a restart"),
        pytest.param(snapshot(workers()), False, False, False, id="given up"),
        pytest.param(snapshot(workers(READY, LOADING, min_workers=2)), True, False, True, id="being scaled up"),
        pytest.param(
            snapshot(workers(replace(READY, activity=NEW))), False, False, False, id="new worker has not answered"
        ),
        pytest.param(
            snapshot(workers(READY, replace(READY, activity=NEW), min_workers=2)),
            True, True, True, id="new worker beside one that has answered",
        ),
        pytest.param(
            snapshot(workers(replace(READY, activity=NEW), needs_answer=False)), True, True, True, id="no probe known"
        ),
        pytest.param(snapshot(workers(CUSTOM)), True, True, True, id="custom handler"),
        pytest.param(
            snapshot(workers(replace(CUSTOM, alive=False))), False, False, False, id="custom handler, zombie"
        ),
        pytest.param(
            snapshot(workers(replace(CUSTOM, stopped=True))), False, False, False, id="custom handler, suspended"
        ),
        pytest.param(
            snapshot(replace(SERVING, probe_failure="HTTP 500")), False, False, False, id="probes are not answered"
        ),
        pytest.param(
            snapshot(replace(SERVING, queue_stalled_s=11.0)), False, False, False, id="requests beside idle workers"
        ),
        pytest.param(
            snapshot(replace(SERVING, model=replace(MODEL, workers=()), min_workers=0)),
            True, True, False, id="scaled to 0",
        ),
        pytest.param(
            snapshot(SERVING, replace(OTHER, model=replace(OTHER.model, workers=()), min_workers=0)),
            True, True, True, id="non-default version scaled to 0",
        ),
        pytest.param(snapshot(workers(LOADING, in_service=False)), True, False, False, id="being registered"),
        pytest.param(
            snapshot(SERVING, replace(OTHER, model=replace(OTHER.model, workers=(DEAD,)))),
            True, False, True, id="non-default version broken",
        ),
        pytest.param(snapshot(SERVING, undescribed={"n": "no"}), True, False, True, id="another cannot be described"),
        pytest.param(snapshot(), False, False, None, id="no model"),
        pytest.param(snapshot(undescribed={"n": "no"}), False, False, None, id="no model can be described"),
        pytest.param(snapshot(SERVING, missing=LOST), True, False, True, id="non-default version lost at a restart"),
        pytest.param(
            snapshot(SERVING, missing=LOST, lost_defaults={"m": "2"}),
            False, False, False, id="default version lost at a restart",
        ),
        pytest.param(
            snapshot(missing=LOST, lost_defaults={"m": "2"}), False, False, False, id="only version lost at a restart"
        ),
        pytest.param(snapshot(SERVING, lost_defaults={"m": "1"}), True, True, True, id="lost default is back"),
        pytest.param(snapshot(SERVING, phase="starting"), False, False, True, id="starting"),
        pytest.param(snapshot(SERVING, phase="restarting"), False, False, False, id="front end restarting"),
        pytest.param(snapshot(SERVING, phase="stopping"), False, False, False, id="stopping"),
        pytest.param(snapshot(SERVING, front_end_answered=NOW - 9), True, True, True, id="front end slow"),
        pytest.param(snapshot(SERVING, front_end_answered=NOW - 11), False, False, False, id="front end silent"),
        pytest.param(replace(snapshot(SERVING), at=NOW - 6), False, False, False, id="observations are old"),
    ],
)  # fmt: skip
def test_observed_state_has_one_verdict(at_now, state, server, strict_server, model):
    """`model` is the verdict on the default version of m, which is the same with `strict` unless a worker loads."""
    source = StateSource(state)
    verdicts = ask_supervisor(source)
    assert (verdicts[None, None, False] is None, verdicts[None, None, True] is None) == (
        server,
        strict_server,
    )
    verdict = verdicts["m", None, False]
    assert (None if verdict == NOT_FOUND else verdict is None) == model
    assert asyncio.run(ask_gateway(lambda request: source.get(request.url.path))) == verdicts
    assert asyncio.run(ask_client_of_gateway(source)) == verdicts


# A model that does not answer a request: busy or broken?

NO_WORKER = {
    "code": 503,
    "type": "ServiceUnavailableException",
    "message": 'ObservedVersion "m" has no worker',
}


@pytest.mark.parametrize(
    ("answer", "described", "busy"),
    [
        pytest.param(NO_WORKER, version("1", 1, "ready", waiting=100), True, id="503, full queue"),
        pytest.param(NO_WORKER, version("1", 1, "ready"), True, id="503, the queue has emptied since"),
        pytest.param(NO_WORKER, version("1", 2, "ready", "loading", waiting=9), True, id="503, one of two workers"),
        pytest.param(NO_WORKER, version("1", 1, "loading", waiting=9), False, id="503, worker loading"),
        pytest.param(NO_WORKER, version("1", 0), False, id="503, scaled to 0"),
        pytest.param(
            {"code": 503, "type": "InternalServerException", "message": "Prediction failed"},
            version("1", 1, "ready", waiting=9), False, id="503, handler raised",
        ),
        pytest.param(
            {"code": 500, "type": "InternalServerException", "message": "ObservedWorker died."},
            version("1", 1, "ready", waiting=9), False, id="500",
        ),
        pytest.param(
            {"code": 507, "type": "InternalServerException", "message": "ObservedWorker died."},
            version("1", 1, "ready", waiting=9), False, id="507",
        ),
    ],
)  # fmt: skip
def test_unanswered_request_has_one_verdict(monkeypatch, answer, described, busy):
    torchserve = TorchServe({"m": [described]})

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/predictions"):
            return httpx.Response(answer["code"], json=answer)
        return torchserve(request)

    transport = httpx.MockTransport(respond)
    for module in (model_probe, model_states):
        monkeypatch.setattr(module, "Client", lambda **options: Client(transport=transport, **options))
    result = model_probe.send_probe(Endpoints(), MODEL, ArchiveOrigin(task="summarization"), 5.0)
    assert (result.busy, result.ok) == (busy, busy)

    async def ask_diagnosis() -> Exception:
        async with AsyncClient(transport=transport, retries=0) as client:
            try:
                await client.summarize("m", "text")
            except Exception as error:
                return await UnavailableDiagnosis(client).diagnose_error("m", error)
            raise AssertionError("the request was answered")

    error = asyncio.run(ask_diagnosis())
    assert (isinstance(error, Overloaded) and error.code == 429) == busy


@pytest.mark.parametrize(("waiting", "busy"), [(0, False), (5, True)])
def test_handler_without_time_left_fails_the_probe_unless_requests_wait(monkeypatch, waiting, busy):
    torchserve = TorchServe({"m": [version("1", 1, "ready", waiting=waiting)]})
    error = {"code": 503, "type": "Overloaded", "message": "the time limit of the batch has passed"}

    def respond(request: httpx.Request) -> httpx.Response:
        is_prediction = request.url.path.startswith("/predictions")
        return httpx.Response(503, json=error) if is_prediction else torchserve(request)

    for module in (model_probe, model_states):
        monkeypatch.setattr(
            module, "Client", lambda **options: Client(transport=httpx.MockTransport(respond), **options)
        )
    result = model_probe.send_probe(Endpoints(), MODEL, ArchiveOrigin(task="summarization"), 5.0)
    assert result.busy == busy
    assert result.problem == (None if busy else error["message"])
