"""Which models parse forms in their handler, as this project's base class does.

TorchServe's parser needs 40 ms for each MB of a multipart form, so these models get the form as the request's body.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from handlers.core.forms import FORM_CONTENT_TYPE_HEADER
from torchserve_models.client import TorchServeError
from torchserve_models.gateway.grpc.rest_calls import RestRequest

REFRESH_S = 10.0
MAX_AGE_S = 30.0
MAX_MODELS = 256
"""Clients choose the names, so the number that is cached is limited."""

Key = tuple[str, str]


class FormSupport:
    """Memory of which models parse forms, updated in the background, so that no call waits for a description."""

    def __init__(self, describe: Callable[[str, str | None], Awaitable[Mapping[str, Any]]]) -> None:
        """
        Args:
            describe: Returns a model's Open Inference metadata. Only the base class reports `inputs`.
        """
        self._describe = describe
        self._known: dict[Key, tuple[bool, float]] = {}
        self._updates: dict[Key, asyncio.Task[None]] = {}

    def adapt(self, request: RestRequest) -> RestRequest:
        """Return the request with its form as the body if the model is known to parse it, otherwise unchanged."""
        key = request.model, request.version
        parses_forms, at = self._known.get(key, (False, 0.0))
        age_s = time.monotonic() - at
        if age_s > REFRESH_S and key not in self._updates and len(self._updates) < MAX_MODELS:
            self._updates[key] = asyncio.create_task(self._update(key))
        if not parses_forms or age_s > MAX_AGE_S:
            return request
        form_type = request.headers["content-type"]
        headers = {FORM_CONTENT_TYPE_HEADER: form_type, "content-type": "application/octet-stream"}
        return replace(request, headers={**request.headers, **headers})

    async def _update(self, key: Key) -> None:
        model, version = key
        try:
            parses_forms = bool((await self._describe(model, version or None)).get("inputs"))
        except TorchServeError:
            parses_forms = False
        finally:
            del self._updates[key]
        if len(self._known) >= MAX_MODELS:
            self._known.clear()
        self._known[key] = parses_forms, time.monotonic()
