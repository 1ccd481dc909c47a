"""Routes that people know from other servers, whose bodies nginx cannot turn into ours."""

import asyncio
import io
import json
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client import AsyncClient, ServeError
from client.results import Scalar
from gateway.answers import Raw, refuse
from gateway.known_routes import LENGTHS
from gateway.refusals import Refusals
from gateway.settings import Settings
from handlers.core.errors import InvalidImage, InvalidParameter, InvalidRequest, TooLarge
from handlers.core.request import parse_json

# The client's arguments beside parameters.
_ARGUMENTS = ("self", "model", "version", "image", "text")


class Translated:
    def __init__(self, settings: Settings, client: AsyncClient, refusals: Refusals) -> None:
        self._settings = settings
        self._client = client
        self._refusals = refusals
        # The pixels of one picture, as JSON, take many times its body's memory, and the interpreter for themselves.
        self._one_picture = asyncio.Semaphore(1)

    def routes(self) -> list[Route]:
        return [
            Route("/predict/text_summarize", self.summarize, methods=["POST"]),
            Route("/model", self.classify, methods=["POST"]),
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
        text = await self._field(request, "text")
        if not (isinstance(text, str) or (isinstance(text, list) and all(isinstance(t, str) for t in text))):
            raise InvalidRequest("the field 'text' must be a string or a list of strings")
        try:
            found = await self._client.summarize(names[key], text, **query)
        except ServeError as error:
            return refuse(await self._refusals.by_error(names[key], error))
        return Raw(
            [{"summary_text": each.text} | ({"truncated": True} if each.truncated else {}) for each in found]
        )

    async def classify(self, request: Request) -> Response:
        """`{"img": [[[red, green, blue], ...], ...]}`."""
        name, query = self._settings.image_model, _query(request)
        async with self._one_picture:
            picture = await run_in_threadpool(_bitmap, await self._field(request, "img"))
        try:
            found = await self._client.classify(name, picture, **query)
        except ServeError as error:
            return refuse(await self._refusals.by_error(name, error))
        return Raw([{"label": each.label, "score": each.score} for each in found])

    async def _field(self, request: Request, name: str) -> Any:
        """The one field of a JSON object, whatever the content type says it is."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._settings.max_body:
                raise TooLarge(f"the body is larger than {self._settings.max_body >> 20} MiB")
        message = await run_in_threadpool(parse_json, body)
        if not isinstance(message, dict) or message.keys() != {name}:
            raise InvalidRequest(f"the body must be a JSON object with the one field '{name}'")
        return message[name]


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


def _bitmap(pixels: Any) -> bytes:
    """The picture as a file that the handler reads without loss."""
    malformed = InvalidImage("'img' must be lists [height][width][3] of integers")
    try:  # before numpy, which takes true for 1, and makes every element as long as the longest string
        if set(map(type, chain.from_iterable(chain.from_iterable(pixels)))) != {int}:
            raise malformed
        array = np.asarray(pixels)
    except (TypeError, ValueError, OverflowError):  # no lists, or rows of different lengths
        raise malformed from None
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu":
        raise malformed
    if array.min() < 0 or array.max() > 255:
        raise InvalidImage("'img' must hold integers from 0 to 255")
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()
