"""Send one request and return the reply, over plain HTTP or with the Python client and its retries."""

import time
from types import TracebackType
from typing import Any, Self

import httpx

from tests.chaos.cases import Answer, Request, Task, read_answer
from tests.chaos.outcomes import Reply, reply_of
from torchserve_models import client
from torchserve_models.client import Client, Endpoints, Protocol

CONNECT_TIMEOUT_S = 5.0


class Sender:
    """Sender for one thread. `retries` applies to the Python client; plain HTTP requests are never sent again."""

    def __init__(self, endpoints: Endpoints, deadline: float, retries: int = 0, source: str = "") -> None:
        self._endpoints, self._deadline, self._retries = endpoints, deadline, retries
        self._http = http_client(endpoints.inference, deadline, source)
        self._clients: dict[Protocol, Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        for model_client in self._clients.values():
            model_client.close()

    def send_rest(self, request: Request) -> Reply:
        return send(self._http, request)

    def call(
        self, protocol: Protocol, task: Task, model: str, content: bytes, parameters: dict[str, Any]
    ) -> Reply:
        """Send a request with the Python client."""
        if protocol not in self._clients:
            self._clients[protocol] = Client(
                endpoints=self._endpoints,
                protocol=protocol,
                timeout=self._deadline,
                connect_timeout=CONNECT_TIMEOUT_S,
                retries=self._retries,
            )
        connection = self._clients[protocol]
        try:
            if task == "image":
                label = connection.classify(model, content, **parameters)[0]
                return Reply(200, value=Answer(label.label, label.score))
            summary = connection.summarize(model, content.decode(), **parameters)[0]
            return Reply(200, value=Answer(summary.text))
        except client.TorchServeError as error:
            return reply_of(error)
        except IndexError:
            return Reply(200, "an empty answer")


def http_client(url: str, deadline: float, source: str = "") -> httpx.Client:
    """Return a plain HTTP client without retries that connects from the loopback address `source`."""
    timeout = httpx.Timeout(deadline, connect=CONNECT_TIMEOUT_S)
    transport = httpx.HTTPTransport(local_address=source or None, retries=0)
    return httpx.Client(base_url=url, timeout=timeout, transport=transport, trust_env=False)


def send(connection: httpx.Client, request: Request) -> Reply:
    try:
        response = connection.request(
            request.method, request.path, headers=dict(request.headers), content=request.body or None
        )
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return Reply(message=str(error), failure="unsent")
    except httpx.TimeoutException as error:
        return Reply(message=type(error).__name__, failure="timeout")
    except httpx.HTTPError as error:
        return Reply(message=str(error) or type(error).__name__, failure="broken")
    return read(response)


def read(response: httpx.Response) -> Reply:
    if response.status_code == 200:
        return Reply(200, response.text[:300], value=read_answer(response.content))
    pause = response.headers.get("retry-after", "")
    seconds = float(pause) if pause.isascii() and pause.isdigit() else None
    return Reply(response.status_code, response.text[:300], retry_after=seconds)


def now() -> float:
    """Return `time.monotonic()`, a clock that all processes of the machine share."""
    return time.monotonic()
