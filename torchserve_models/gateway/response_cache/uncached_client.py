"""Send a prediction to nginx's listener without the response cache."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from urllib.parse import quote

import httpx

from torchserve_models.client import Timeout
from torchserve_models.gateway.internal_routes import KEY_HEADER
from torchserve_models.gateway.response_cache.answer_store import Answer
from torchserve_models.gateway.settings import PREDICTION_TIMEOUT_S

ROUTE_HEADER = "x-cache-route"
"""nginx's header with a key of PATHS."""
PATHS: Mapping[str, str] = {
    "predictions": "/predictions/{model}",
    "v1": "/v1/models/{model}:predict",
    "v2": "/v2/models/{model}/infer",
    "v2-versions": "/v2/models/{model}/versions/{version}/infer",
}
"""Path by class of route. The routes of one class answer equal requests equally, those of two classes may not."""
VERSIONED_ROUTES = frozenset({"predictions", "v2-versions"})
"""Routes with a path for each version. TorchServe has none for /v1 and /v2."""
MAX_ANSWER_BYTES = 2**18
"""Bounds the memory of the answers of MAX_REQUESTS requests, which are not part of the store: 64 MiB."""

# Headers of the request that nginx sets again, or that end at the gateway.
_REQUEST_ONLY = frozenset(
    b"connection content-length transfer-encoding x-request-timeout x-request-start x-edge-id x-gateway-key "
    b"x-cache-route x-edge-key-id".split()
)
# Headers of the first answer that do not belong to the others: nginx sets them again. TorchServe forbids caching in
# all of its answers with the last three, which handlers cannot change.
_ANSWER_ONLY = re.compile(
    rb"connection|keep-alive|transfer-encoding|content-length|date|server|vary|x-request-id|access-control-.*|x-cache"
    rb"|age|cache-control|pragma|expires"
)
_TIMEOUTS = {"connect": 5.0, "read": PREDICTION_TIMEOUT_S, "write": 60.0, "pool": None}


class NotShared(Enum):
    """Why there is no answer that several requests could share."""

    STREAM = auto()
    TOO_LARGE = auto()
    LOST = auto()
    """nginx did not answer, or with an error of unknown length."""


class UncachedClient:
    """Client of nginx's listener without the cache."""

    def __init__(self, transport: httpx.AsyncBaseTransport, url: str, key: str) -> None:
        """
        Args:
            transport: Sends the requests.
            url: The listener.
            key: The secret that nginx and the gateway share.
        """
        self._transport = transport
        self._url = httpx.URL(url)
        self._key = key

    def build_request(
        self,
        route: str,
        model: str,
        version: str,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> httpx.Request:
        """Return the request for nginx. It has no deadline, because requests with other deadlines may join it.

        Args:
            route: A key of PATHS.
            model: The model's name, decoded.
            version: The version; empty for the default version.
            query: The query as received.
            headers: The headers as received, with names in lower case.
            body: The body.
        """
        path = PATHS[route].format(model=quote(model, safe=""), version=quote(version, safe=""))
        if version and route == "predictions":
            path += "/" + quote(version, safe="")
        sent = [(name, value) for name, value in headers if name not in _REQUEST_ONLY]
        sent.append((KEY_HEADER.encode(), self._key.encode()))
        # httpx.URL would change some characters of the query, and reject others.
        target = path.encode("ascii") + (b"?" + query if query else b"")
        extensions = {"timeout": _TIMEOUTS, "target": target}
        return httpx.Request("POST", self._url, headers=sent, content=body, extensions=extensions)

    async def send(self, request: httpx.Request) -> Answer | NotShared:
        """Return the answer if its length is known and at most MAX_ANSWER_BYTES.

        Raises:
            Timeout: TorchServe did not answer in time (504). Sending the request again would not help.
        """
        try:
            response = await self._transport.handle_async_request(request)
            try:
                length = response.headers.get("content-length", "")
                if not length.isdecimal():
                    return NotShared.STREAM if response.status_code == 200 else NotShared.LOST
                if int(length) > MAX_ANSWER_BYTES:
                    return NotShared.TOO_LARGE
                body = b"".join([chunk async for chunk in response.aiter_raw()])
            finally:
                await response.aclose()
        except httpx.ReadTimeout:
            raise Timeout("TorchServe did not answer in time", code=504) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            return NotShared.LOST
        headers = ((name.lower(), value) for name, value in response.headers.raw)
        return Answer(
            response.status_code,
            tuple(header for header in headers if not _ANSWER_ONLY.fullmatch(header[0])),
            body,
        )
