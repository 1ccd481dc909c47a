"""Routes that people know from other servers, whose bodies nginx cannot turn into ours."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.compression import decompress, decompressed_size
from handlers.core.content_type import ContentType, decode_text, needs_decoding
from handlers.core.errors import HandlerError, InvalidParameter, InvalidRequest, TooLarge
from handlers.core.json_bounds import check_json_bounds
from handlers.core.json_message import parse_json
from torchserve_models.client import AsyncClient, TorchServeError
from torchserve_models.client.results import Scalar
from torchserve_models.gateway.answers import Raw, refuse
from torchserve_models.gateway.bodies import BodyReader, IncomingBody
from torchserve_models.gateway.forwarding import forwarded, run_until_disconnect
from torchserve_models.gateway.inflating import inflated
from torchserve_models.gateway.known_routes import LENGTHS
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.pixels import PixelParser
from torchserve_models.gateway.settings import Settings
from torchserve_models.gateway.unavailable import UnavailableDiagnosis

P = ParamSpec("P")
T = TypeVar("T")
SUMMARIZE = "/predict/text_summarize"
CLASSIFY = "/model"
TEXT_COPIES = 6
"""A text as a string takes up to four times its UTF-8, and once more or twice on its way to TorchServe."""
_ONE_FIELD = "the body must be a JSON object with the one field 'text'; parameters go into the query"
PARSE_BYTES = 2**19
"""Pixels that are parsed at a time: each time takes a switch to another thread and back."""
# Arguments of the client's methods, which no model's parameter can be passed beside.
_ARGUMENTS = {
    name
    for method in (AsyncClient.classify, AsyncClient.summarize)
    for name, argument in inspect.signature(method).parameters.items()
    if argument.kind is not argument.VAR_KEYWORD and name != "top_k"
}


class CompatRoutes:
    def __init__(
        self,
        settings: Settings,
        client: AsyncClient,
        refusals: UnavailableDiagnosis,
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
        max_bytes, encoding = self._settings.max_text_body, _encoding(request)

        def size_of(body: bytearray) -> int:
            try:
                size = decompressed_size(body, encoding)
            except TooLarge:
                raise self._bodies.too_large(max_bytes) from None
            if size > max_bytes:
                raise self._bodies.too_large(max_bytes)
            return size

        async with forwarded(request), self._bodies.read(request, max_bytes, TEXT_COPIES, size_of) as body:
            charset = ContentType.parse(request.headers.get("content-type", "")).charset
            text = await self._in_turn(_text, body, encoding, charset)
            body.clear()  # its request may wait for long
            response = await run_until_disconnect(request, self._summarize(names[key], text, query))
        return response  # noqa: RET504 - a context may swallow errors, as far as mypy knows

    async def classify(self, request: Request) -> Response:
        """`{"img": PIXELS}`, see gateway/pixels.py."""
        query = _query(request)
        async with forwarded(request), self._bodies.open(request, self._settings.max_body) as incoming:
            file = await self._read_pixels(incoming, _encoding(request))
            response = await run_until_disconnect(request, self._classify(file, query))
        return response  # noqa: RET504 - a context may swallow errors, as far as mypy knows

    async def _read_pixels(self, incoming: IncomingBody, encoding: str) -> bytes:
        """The image as a file, for which memory is held."""
        parser, unparsed = PixelParser(), bytearray()
        async for piece in inflated(incoming.pieces(), encoding, self._settings.max_body):
            unparsed += piece
            incoming.hold(parser.memory_bytes + len(unparsed))
            if len(unparsed) >= PARSE_BYTES:
                await self._in_turn(parser.feed, bytes(unparsed))
                unparsed.clear()
        await self._in_turn(parser.feed, bytes(unparsed))
        # Its levels, those in Pillow's hands, and the file twice.
        incoming.hold(4 * parser.file_bytes)
        file = await self._in_turn(parser.finish)
        incoming.hold(3 * len(file))  # with parameters it goes on in base64
        return file

    async def _summarize(self, name: str, text: str | list[str], query: dict[str, Any]) -> Response:
        parameters, names = _our_names(query)
        try:
            found = await self._client.summarize(name, text, **parameters)
        except TorchServeError as error:
            error.message = _their_words(error.message, names)
            return refuse(await self._refusals.by_error(name, error))
        return Raw(
            [{"summary_text": each.text} | ({"truncated": True} if each.truncated else {}) for each in found]
        )

    async def _classify(self, file: bytes, query: dict[str, Any]) -> Response:
        name = self._settings.model_of(CLASSIFY)
        try:
            found = await self._client.classify(name, file, **query)
        except TorchServeError as error:
            return refuse(await self._refusals.by_error(name, error))
        return Raw([{"label": each.label, "score": each.score} for each in found])

    async def _in_turn(self, parse: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Parse one body, or a piece of it, at a time, in a thread."""
        async with self._parsing:
            try:
                return await run_in_threadpool(parse, *arguments, **options)
            except HandlerError:
                self._metrics.refuse("invalid")
                raise


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "")


def _text(body: bytearray, encoding: str, charset: str) -> str | list[str]:
    """The one field of a JSON object, whatever media type the content type names. Raises BadRequest or TooLarge."""
    content = decompress(body, encoding)
    if not content.strip():
        raise InvalidRequest(f"the body is empty; {_ONE_FIELD}")
    if needs_decoding(content, charset):
        content = decode_text(content, charset).encode("utf-8", "surrogatepass")
    check_json_bounds(content)
    try:
        message = parse_json(content)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error.message}; {_ONE_FIELD}") from None
    if isinstance(message, dict):
        message = {name: value for name, value in message.items() if value is not None}
    if not isinstance(message, dict) or message.keys() != {"text"}:
        raise InvalidRequest(_ONE_FIELD)
    text = message["text"]
    if not (isinstance(text, str) or (isinstance(text, list) and all(isinstance(t, str) for t in text))):
        raise InvalidRequest("the field 'text' must be a string or a list of strings")
    return text


def _our_names(query: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters under the handler's names, and the names under which the client knows them."""
    parameters = dict(query)
    for theirs, ours in LENGTHS.items():
        if theirs in query and ours in query:
            raise InvalidParameter(f"'{theirs}' and '{ours}' are one parameter: give one of them")
        if theirs in query:
            parameters[ours] = parameters.pop(theirs)
    return parameters, {ours: theirs for theirs, ours in LENGTHS.items() if ours not in query}


def _their_words(message: str, names: Mapping[str, str]) -> str:
    """An error message with the client's names of parameters in place of the handler's."""
    for ours, theirs in names.items():
        message = re.sub(rf"\b{ours}\b", theirs, message)
    return message


def _query(request: Request, *others: str) -> dict[str, Any]:
    """The model's parameters in the query, all but `others`; values as JSON reads them, else as strings."""
    found: dict[str, Scalar] = {}
    names = set()
    for name, text in request.query_params.multi_items():
        if name in names:
            raise InvalidParameter(f"'{name[:60]}' is given twice")
        names.add(name)
        if name in others:
            continue
        if name in _ARGUMENTS:
            raise InvalidParameter(f"unknown parameter '{name}'")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        found[name] = value if isinstance(value, bool | int | float | str) else text
    return found
