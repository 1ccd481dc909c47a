"""REST requests to TorchServe that answer gRPC calls.

Over REST, TorchServe reports the handlers' statuses, passes headers on, and loses no worker to a wrong call.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from handlers.core.errors import TooLarge
from torchserve_models.client import ModelNotFound, Timeout, Unavailable, WorkerDied
from torchserve_models.client.error_conversion import annotate, error_from_body
from torchserve_models.client.names import is_addressable
from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway.settings import PREDICTION_TIMEOUT_S
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis

_TIMEOUTS = {"connect": 5.0, "read": PREDICTION_TIMEOUT_S}


@dataclass(frozen=True)
class RestRequest:
    """A prediction over REST.

    Attributes:
        model: The model's name.
        version: The model's version; empty for the default version.
        path: The URL's path.
        headers: The request's headers.
        body: The request's body.
    """

    model: str
    version: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class RestCalls:
    """Sender of predictions to TorchServe's REST API. Errors have the reasons that nginx gives over REST."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, inference: str, diagnosis: UnavailableDiagnosis
    ) -> None:
        """
        Args:
            transport: Sends requests with the headers of the call that is being processed, and retries them.
            inference: URL of TorchServe's inference API.
            diagnosis: Finds the reason for a 503 response.
        """
        self._transport = transport
        self._inference = inference
        self._diagnosis = diagnosis

    async def send(self, rest_request: RestRequest) -> tuple[httpx.Headers, bytes]:
        """Return the headers and the body of the answer; all parts of it if the model streams.

        Raises:
            TooLarge: The answer exceeds MAX_MESSAGE_BYTES.
            TorchServeError: TorchServe answers with an error, or not at all.
        """
        pieces, size = [], 0
        async with self.open(rest_request) as response:
            async for piece in read_parts(response):
                size += len(piece)
                if size > MAX_MESSAGE_BYTES:
                    raise TooLarge(f"the answer exceeds {MAX_MESSAGE_BYTES >> 20} MiB")
                pieces.append(piece)
        return response.headers, b"".join(pieces)

    @asynccontextmanager
    async def open(self, rest_request: RestRequest) -> AsyncIterator[httpx.Response]:
        """Return a successful answer whose body has not been read. Raises TorchServeError."""
        request = httpx.Request(
            "POST",
            f"{self._inference}{rest_request.path}",
            headers=rest_request.headers,
            content=rest_request.body,
            extensions={"timeout": _TIMEOUTS},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.TimeoutException as error:
            raise Timeout("TorchServe did not answer in time") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        try:
            if response.status_code != 200:
                await self._raise_failure(rest_request.model, response)
            yield response
        finally:
            await response.aclose()

    async def _raise_failure(self, model: str, response: httpx.Response) -> None:
        body = b"".join([part async for part in read_parts(response)])
        failure = annotate(error_from_body(response.status_code, body), dict(response.headers))
        if isinstance(failure, WorkerDied):
            failure.code, failure.type = 503, "WorkerDied"
            raise failure
        raise await self._diagnosis.diagnose_error(model, failure)


async def read_parts(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive. Raises Timeout or Unavailable."""
    try:
        async for part in response.aiter_bytes():
            yield part
    except httpx.TimeoutException as error:
        raise Timeout("TorchServe did not finish its answer in time") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"TorchServe did not finish its answer: {error}") from error


def check_model_name(model: str, version: str) -> None:
    """Raise ModelNotFound for names that cannot be part of a URL, because no model has such a name."""
    for name in filter(None, (model, version)):
        if not is_addressable(name):
            raise ModelNotFound(f"Model not found: {name[:60]}")
