"""Abusive clients: they disconnect early, send slowly, or send invalid data."""

import gzip
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import grpc

from tests.chaos import raw_socket
from tests.chaos.cases import JSON, OCTETS, TEXT, GoodCase, Request, request_of
from tests.chaos.outcomes import Category, Record, Reply, classify
from tests.chaos.plan import Event
from tests.chaos.send import http_client, now, send
from tests.chaos.traffic import RecordLog
from torchserve_models.client import Endpoints
from torchserve_models.client.call_types import import_stubs

SOURCE = "127.0.0.66"
"""Source address of abusive clients, so that per-address limits do not affect the good clients."""
AT_ONCE = 8
BRACKETS_BYTES = 2 * 2**20
ANSWER_TIMEOUT_S = 30.0


class AbuseRunner:
    """Runner of up to AT_ONCE concurrent abuse events; events beyond that are skipped and counted in `left_out`."""

    def __init__(self, endpoints: Endpoints, good: Sequence[GoodCase], seed: int, log: RecordLog) -> None:
        self._endpoints, self._good, self._log, self._seed = endpoints, good, log, seed
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._free = threading.Semaphore(AT_ONCE)
        self._number = 0
        self.left_out = 0
        self.errors: list[str] = []
        self._actions: dict[str, Callable[[Event, random.Random], None]] = {
            "disconnect": self._disconnect,
            "slow": self._slow,
            "hostile": self._hostile,
        }

    def submit(self, event: Event) -> None:
        if not self._free.acquire(blocking=False):
            self.left_out += 1
            return
        self._number += 1
        rng = random.Random(f"{self._seed} abuse {self._number}")
        done: Future[None] = self._pool.submit(self._actions[event.kind], event, rng)
        done.add_done_callback(self._finished)

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _finished(self, done: "Future[None]") -> None:
        self._free.release()
        if not done.cancelled() and (error := done.exception()):
            self.errors.append(f"{type(error).__name__}: {error}")

    def _case(self, model: str, rng: random.Random) -> GoodCase:
        return rng.choice([case for case in self._good if case.model == model] or list(self._good))

    def _disconnect(self, event: Event, rng: random.Random) -> None:
        """Send a good request, and disconnect before the answer."""
        case, started = self._case(event.target, rng), now()
        if event.action == "grpc":
            with grpc.insecure_channel(self._endpoints.grpc_inference) as channel:
                call = _predictions(channel).future(_message(case), timeout=10)
                time.sleep(event.seconds)
                call.cancel()  # type: ignore[no-untyped-call]
        else:
            request = request_of(case, "native")
            try:
                with self._connect() as connection:
                    connection.sendall(raw_socket.head(request.path, len(request.body), request.headers))
                    connection.sendall(request.body)
                    time.sleep(event.seconds)
            except OSError:
                pass
        self._note(started, event, Category.ABANDONED, "left")

    def _slow(self, event: Event, rng: random.Random) -> None:
        """Send an unfinished header or body byte by byte."""
        request, started = request_of(self._case(event.target, rng), "native"), now()
        head = raw_socket.head(request.path, len(request.body), request.headers)
        data = head if event.action == "header" else request.body
        label = "unfinished"
        try:
            with self._connect() as connection:
                if event.action == "body":
                    connection.sendall(head)
                for offset in range(int(event.seconds / 0.2)):
                    connection.sendall(data[offset : offset + 1])
                    time.sleep(0.2)
        except OSError:
            label = "closed by the server"
        self._note(started, event, Category.ABANDONED, label)

    def _hostile(self, event: Event, rng: random.Random) -> None:
        started = now()
        if event.action in ("garbage", "grpc-garbage"):
            target = (
                self._endpoints.inference if event.action == "garbage" else self._endpoints.grpc_inference
            )
            reply = self._garbage(raw_socket.address_of(target), rng)
        elif event.action == "stream":
            reply = self._stream(self._case(event.target, rng))
            # Either the model streams one answer, or the server does not offer the method.
            category = Category.RIGHT if reply.status == 200 else classify("hostile", reply, may_close=True)
            self._note(started, event, category, reply.label, reply.message)
            return
        else:
            request = self._request(event, rng)
            with http_client(self._endpoints.inference, ANSWER_TIMEOUT_S, SOURCE) as connection:
                reply = send(connection, request)
        category = classify("hostile", reply, may_close=True)
        self._note(started, event, category, reply.label, reply.message)

    def _request(self, event: Event, rng: random.Random) -> Request:
        case = self._case(event.target, rng)
        name, path = f"hostile {event.action}", f"/predictions/{case.model}"
        if event.action == "brackets":
            routes = [path, f"/v2/models/{case.model}/infer"]
            if rng.random() < 0.5:  # 404 where there is no gateway
                routes += ["/model", "/predict/text_summarize?model=t5"]
            return Request(
                name, case.model, rng.choice(routes), JSON, brackets(BRACKETS_BYTES), may_close=True
            )
        if event.action == "deep":
            return Request(name, case.model, path, JSON, b"[" * 200_000, may_close=True)
        if event.action == "gzip":
            body = gzip.compress(bytes(20_000_000))
            return Request(
                name, case.model, path, {**OCTETS, "content-encoding": "gzip"}, body, may_close=True
            )
        return Request(name, case.model, path, {**TEXT, "x-junk": "x" * 20_000}, b"text", may_close=True)

    def _garbage(self, address: tuple[str, int], rng: random.Random) -> Reply:
        try:
            with raw_socket.connect(address, source=SOURCE) as connection:
                connection.sendall(rng.randbytes(2000) + b"\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                status = raw_socket.read_status(connection, ANSWER_TIMEOUT_S)
        except TimeoutError:
            return Reply(failure="timeout")
        except ConnectionRefusedError:
            return Reply(failure="unsent")
        except OSError:
            status = None
        return Reply(status) if status else Reply(failure="broken")

    def _stream(self, case: GoodCase) -> Reply:
        with grpc.insecure_channel(self._endpoints.grpc_inference) as channel:
            path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"
            module = import_stubs("inference")
            method = channel.unary_stream(
                path,
                request_serializer=module.PredictionsRequest.SerializeToString,
                response_deserializer=module.PredictionResponse.FromString,
            )
            try:
                for _ in method(_message(case), timeout=ANSWER_TIMEOUT_S):
                    pass
                return Reply(200)
            except grpc.RpcError as error:
                return _grpc_reply(error)

    def _connect(self) -> socket.socket:
        return raw_socket.connect(raw_socket.address_of(self._endpoints.inference), source=SOURCE)

    def _note(self, started: float, event: Event, category: Category, label: str, message: str = "") -> None:
        kind = "hostile" if event.kind == "hostile" else "abandoned"
        name = f"{event.kind} {event.action}"
        message = "" if category in (Category.RIGHT, Category.ABANDONED) else message[:200]
        self._log.add(Record(started, now(), kind, name, event.target, "raw", category, label, message))


def brackets(size: int) -> bytes:
    """Return JSON of about `size` bytes with as many lists as possible: {"inputs": [[],[],...]}."""
    inner = b"[]," * ((size - 20) // 3)
    return b'{"inputs": [' + inner + b"[]]}"


def _message(case: GoodCase) -> object:
    entries = {"data": case.content}
    return import_stubs("inference").PredictionsRequest(model_name=case.model, input=entries)


def _predictions(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable:
    module = import_stubs("inference")
    return channel.unary_unary(
        "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
        request_serializer=module.PredictionsRequest.SerializeToString,
        response_deserializer=module.PredictionResponse.FromString,
    )


def _grpc_reply(error: grpc.RpcError) -> Reply:
    codes = {"INVALID_ARGUMENT": 400, "UNIMPLEMENTED": 404, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
    name, details = error.code().name, error.details() or ""
    if name == "DEADLINE_EXCEEDED":
        return Reply(message=details, failure="timeout")
    if name == "UNAVAILABLE":
        return Reply(message=details, failure="unsent" if "failed to connect" in details else "broken")
    return Reply(codes.get(name, 500), json.dumps(f"{name}: {details}"))
