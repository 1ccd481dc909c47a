"""Routes that people know from other servers, whose bodies nginx cannot turn into ours."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client import AsyncClient, ServeError
from client.results import Scalar
from gateway import pixels
from gateway.answers import Raw, refuse
from gateway.bodies import BodyReader
from gateway.forwarding import forwarded, run_until_disconnect
from gateway.known_routes import LENGTHS
from gateway.metrics import GatewayMetrics
from gateway.refusals import Refusals
from gateway.settings import Settings
from handlers.core.errors import InvalidParameter, InvalidRequest, ServingError
from handlers.core.json_bounds import check_json_bounds
from handlers.core.request import parse_json

T = TypeVar("T")
SUMMARIZE = "/predict/text_summarize"
CLASSIFY = "/model"
TEXT_COPIES = 6
"""A text as a string takes up to four times its UTF-8, and once more or twice on its way to TorchServe."""
# The client's arguments beside parameters.
_ARGUMENTS = ("self", "model", "version", "image", "text")


class Translated:
    def __init__(
        self,
        settings: Settings,
        client: AsyncClient,
        refusals: Refusals,
        bodies: BodyReader,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._client = client
        self._refusals = refusals
        self._bodies = bodies
        self._metrics = metrics
        # Decoding and parsing hold several copies of a body for a moment, and the interpreter.
        self._parsing = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        return [
            Route(SUMMARIZE, self.summarize, methods=["POST"]),
            Route(CLASSIFY, self.classify, methods=["POST"]),
        ]

    async def summarize(self, request: Request) -> Response:
        """`{"text": ...}`; in the query `model`, `min`, `max`, and our own parameters."""
        query = _query(request, "model")
        names = self._settings.summarizers
        key = request.query_params.get("model", next(iter(names)))
        if key not in names:
            raise InvalidParameter(f"'model' must be {' or '.join(map(repr, names))}, not {key[:60]!r}")
        for theirs, ours in LENGTHS.items():
            if theirs in query and ours in query:
                raise InvalidParameter(f"'{theirs}' and '{ours}' are one parameter: give one of them")
            if theirs in query:
                query[ours] = query.pop(theirs)
        return await self._answer(
            request,
            self._settings.max_text_body,
            TEXT_COPIES,
            _text,
            lambda text: self._summarize(names[key], text, query),
        )

    async def classify(self, request: Request) -> Response:
        """`{"img": [[[red, green, blue], ...], ...]}`."""
        query = _query(request)
        return await self._answer(
            request,
            self._settings.max_body,
            pixels.COPIES,
            pixels.to_bitmap,
            lambda bitmap: self._classify(bitmap, query),
        )

    async def _summarize(self, name: str, text: str | list[str], query: dict[str, Any]) -> Response:
        try:
            found = await self._client.summarize(name, text, **query)
        except ServeError as error:
            return refuse(await self._refusals.by_error(name, error))
        return Raw(
            [{"summary_text": each.text} | ({"truncated": True} if each.truncated else {}) for each in found]
        )

    async def _classify(self, bitmap: bytes, query: dict[str, Any]) -> Response:
        name = self._settings.image_model
        try:
            found = await self._client.classify(name, bitmap, **query)
        except ServeError as error:
            return refuse(await self._refusals.by_error(name, error))
        return Raw([{"label": each.label, "score": each.score} for each in found])

    async def _answer(
        self,
        request: Request,
        max_bytes: int,
        copies: int,
        parse: Callable[[bytearray], T],
        ask: Callable[[T], Coroutine[Any, Any, Response]],
    ) -> Response:
        """Read and parse the body, then ask the model, for as long as the client waits."""
        async with forwarded(request), self._bodies.read(request, max_bytes, copies) as body:
            parsed = await self._parse(parse, body)
            response = await run_until_disconnect(request, ask(parsed))
        return response  # noqa: RET504 - a context may swallow errors, as far as mypy knows

    async def _parse(self, parse: Callable[[bytearray], T], body: bytearray) -> T:
        """Parse one body at a time, in a thread. The body is emptied, since its request may wait for long."""
        async with self._parsing:
            try:
                return await run_in_threadpool(parse, body)
            except ServingError:
                self._metrics.refuse("invalid")
                raise
            finally:
                body.clear()


def _text(body: bytearray) -> str | list[str]:
    """The one field of a JSON object, whatever the content type says it is."""
    check_json_bounds(body)
    message = parse_json(body)
    if not isinstance(message, dict) or message.keys() != {"text"}:
        raise InvalidRequest("the body must be a JSON object with the one field 'text'")
    text = message["text"]
    if not (isinstance(text, str) or (isinstance(text, list) and all(isinstance(t, str) for t in text))):
        raise InvalidRequest("the field 'text' must be a string or a list of strings")
    return text


def _query(request: Request, *others: str) -> dict[str, Any]:
    """The model's parameters in the query, all but `others`; values as JSON reads them, else as strings."""
    found: dict[str, Scalar] = {}
    for name, text in request.query_params.multi_items():
        if name in others:
            continue
        if name in found:
            raise InvalidParameter(f"'{name[:60]}' is given twice")
        if name in _ARGUMENTS:
            raise InvalidParameter(f"unknown parameter '{name}'")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        found[name] = value if isinstance(value, bool | int | float | str) else text
    return found
