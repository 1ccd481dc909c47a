"""Compatibility routes of other servers whose request bodies nginx cannot translate."""

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
from torchserve_models.gateway.metrics import GatewayMetrics
from torchserve_models.gateway.openapi.compat_operations import LENGTH_ALIASES
from torchserve_models.gateway.request_bodies.decompression import decompress_chunks
from torchserve_models.gateway.request_bodies.pixel_parser import PixelParser
from torchserve_models.gateway.request_bodies.reader import BodyReader, IncomingBody
from torchserve_models.gateway.responses import UnicodeJSONResponse, error_response
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.forwarding import forward_context, run_until_disconnect
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis

P = ParamSpec("P")
T = TypeVar("T")
SUMMARIZE_ROUTE = "/predict/text_summarize"
CLASSIFY_ROUTE = "/model"
TEXT_COPIES = 6
"""A decoded text takes up to four times its UTF-8 size, and sending it to TorchServe takes one or two more copies."""
_ONE_FIELD = "the body must be a JSON object with the one field 'text'; send parameters in the query"
PARSE_BYTES = 2**19
"""Bytes of pixels that are parsed at a time, because each call switches to another thread and back."""
# Arguments of the client's methods. A model's parameter cannot have the same name.
_CLIENT_ARGUMENTS = {
    name
    for method in (AsyncClient.classify, AsyncClient.summarize)
    for name, argument in inspect.signature(method).parameters.items()
    if argument.kind is not argument.VAR_KEYWORD and name != "top_k"
}


class CompatRoutes:
    """The compatibility routes SUMMARIZE_ROUTE and CLASSIFY_ROUTE."""

    def __init__(
        self,
        settings: GatewaySettings,
        client: AsyncClient,
        diagnosis: UnavailableDiagnosis,
        bodies: BodyReader,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._client = client
        self._diagnosis = diagnosis
        self._bodies = bodies
        self._metrics = metrics
        # Decoding and parsing briefly hold several copies of a body, and the interpreter lock.
        self._parsing = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        return [
            Route(SUMMARIZE_ROUTE, self.summarize, methods=["POST"]),
            Route(CLASSIFY_ROUTE, self.classify, methods=["POST"]),
        ]

    async def summarize(self, request: Request) -> Response:
        """Summarize `{"text": ...}`. The query takes `model`, `min`, `max` and the model's parameters."""
        query = _query(request, "model")
        names = self._settings.summarizers
        key = request.query_params.get("model", next(iter(names)))
        if key not in names:
            raise InvalidParameter(f"'model' must be {' or '.join(map(repr, names))}, not {key[:60]!r}")
        max_bytes, encoding = self._settings.max_text_body_bytes, _encoding(request)

        def size_of(body: bytearray) -> int:
            try:
                size = decompressed_size(body, encoding)
            except TooLarge:
                raise self._bodies.too_large(max_bytes) from None
            if size > max_bytes:
                raise self._bodies.too_large(max_bytes)
            return size

        async with (
            forward_context(request),
            self._bodies.read(request, max_bytes, TEXT_COPIES, size_of) as body,
        ):
            charset = ContentType.parse(request.headers.get("content-type", "")).charset
            text = await self._parse_in_thread(_text, body, encoding, charset)
            body.clear()  # free the memory: the prediction may take long
            response = await run_until_disconnect(request, self._summarize(names[key], text, query))
        return response  # noqa: RET504 - mypy assumes that a context manager may suppress exceptions

    async def classify(self, request: Request) -> Response:
        """Classify `{"img": PIXELS}`, see gateway/request_bodies/pixel_parser.py."""
        query = _query(request)
        async with (
            forward_context(request),
            self._bodies.open(request, self._settings.max_body_bytes) as incoming,
        ):
            file = await self._read_pixels(incoming, _encoding(request))
            response = await run_until_disconnect(request, self._classify(file, query))
        return response  # noqa: RET504 - mypy assumes that a context manager may suppress exceptions

    async def _read_pixels(self, incoming: IncomingBody, encoding: str) -> bytes:
        """Return the image as a file. The body budget includes its memory."""
        parser, unparsed = PixelParser(), bytearray()
        async for chunk in decompress_chunks(incoming.chunks(), encoding, self._settings.max_body_bytes):
            unparsed += chunk
            incoming.hold(parser.memory_bytes + len(unparsed))
            if len(unparsed) >= PARSE_BYTES:
                await self._parse_in_thread(parser.feed, bytes(unparsed))
                unparsed.clear()
        await self._parse_in_thread(parser.feed, bytes(unparsed))
        # The pixels, Pillow's copy of them, and the file twice.
        incoming.hold(4 * parser.file_bytes)
        file = await self._parse_in_thread(parser.finish)
        incoming.hold(3 * len(file))  # a request with parameters carries it in base64
        return file

    async def _summarize(self, name: str, text: str | list[str], query: dict[str, Any]) -> Response:
        parameters, aliases = _model_parameters(query)
        try:
            summaries = await self._client.summarize(name, text, **parameters)
        except TorchServeError as error:
            error.message = _with_aliases(error.message, aliases)
            return error_response(await self._diagnosis.diagnose_error(name, error))
        return UnicodeJSONResponse(
            [
                {"summary_text": summary.text} | ({"truncated": True} if summary.truncated else {})
                for summary in summaries
            ]
        )

    async def _classify(self, file: bytes, query: dict[str, Any]) -> Response:
        name = self._settings.model_of(CLASSIFY_ROUTE)
        try:
            labels = await self._client.classify(name, file, **query)
        except TorchServeError as error:
            return error_response(await self._diagnosis.diagnose_error(name, error))
        return UnicodeJSONResponse([{"label": label.label, "score": label.score} for label in labels])

    async def _parse_in_thread(self, parse: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Run `parse` in a thread, one call at a time."""
        async with self._parsing:
            try:
                return await run_in_threadpool(parse, *arguments, **options)
            except HandlerError:
                self._metrics.count_rejected("invalid")
                raise


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "")


def _text(body: bytearray, encoding: str, charset: str) -> str | list[str]:
    """Return the field 'text' of the JSON body, for any media type. Raises InvalidRequest or TooLarge."""
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


def _model_parameters(query: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the parameters under the model's names, and the aliases to use in error messages, by model name."""
    parameters = dict(query)
    for alias, name in LENGTH_ALIASES.items():
        if alias in query and name in query:
            raise InvalidParameter(f"'{alias}' and '{name}' are the same parameter; send only one of them")
        if alias in query:
            parameters[name] = parameters.pop(alias)
    return parameters, {name: alias for alias, name in LENGTH_ALIASES.items() if name not in query}


def _with_aliases(message: str, aliases: Mapping[str, str]) -> str:
    """Return an error message with aliases instead of the model's parameter names."""
    for name, alias in aliases.items():
        message = re.sub(rf"\b{name}\b", alias, message)
    return message


def _query(request: Request, *excluded: str) -> dict[str, Any]:
    """Return the query parameters except `excluded`. Values that are not valid JSON remain strings."""
    parameters: dict[str, Scalar] = {}
    names = set()
    for name, text in request.query_params.multi_items():
        if name in names:
            raise InvalidParameter(f"'{name[:60]}' is sent twice; send it once")
        names.add(name)
        if name in excluded:
            continue
        if name in _CLIENT_ARGUMENTS:
            raise InvalidParameter(f"unknown parameter '{name}'")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        parameters[name] = value if isinstance(value, bool | int | float | str) else text
    return parameters
