"""The route that nginx calls for predictions when the response cache is on.

The gateway answers a request from its store, or sends it back to nginx, to a listener without the cache
(NginxConfig.uncached), so that retries, errors and limits of predictions have one implementation. If a request cannot
be cached, X-Accel-Redirect makes nginx process it as if there were no cache.
"""

import asyncio
from collections import Counter
from dataclasses import replace

import httpx
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.core.errors import TooLarge
from torchserve_models.client import Overloaded
from torchserve_models.gateway.internal_routes import check_key
from torchserve_models.gateway.request_bodies.reader import BodyReader
from torchserve_models.gateway.response_cache.answer_store import Answer, AnswerStore
from torchserve_models.gateway.response_cache.cache_directives import CacheDirectives
from torchserve_models.gateway.response_cache.cache_metrics import CacheMetrics
from torchserve_models.gateway.response_cache.expiring_set import ExpiringSet
from torchserve_models.gateway.response_cache.registrations import Registration, Registrations
from torchserve_models.gateway.response_cache.request_key import request_digest
from torchserve_models.gateway.response_cache.shared_call import SharedCall
from torchserve_models.gateway.response_cache.uncached_client import (
    PATHS,
    ROUTE_HEADER,
    VERSIONED_ROUTES,
    NotShared,
    UncachedClient,
)
from torchserve_models.gateway.upstream.forwarding import forward_context, run_until_disconnect

MAX_BODY_BYTES = 4_200_000
"""nginx sends only bodies below this size (its classes except the largest one, `$body_size`)."""
BODY_COPIES = 2
"""A body while it is forwarded: as received, and as sent."""
MAX_REQUESTS = 256
"""Requests in progress; further ones bypass the cache. Most of the gateway's connections are left to other routes."""
BYPASS_TTL_S = 60.0
"""Seconds for which a model that streams, or a request whose answer was too large, bypasses the cache."""
MAX_LARGE_ANSWERS = 3
"""A model bypasses the cache after this many successive answers that were too large: each is computed twice."""
MAX_BYPASSED = 1000
"""Models and requests that bypass the cache, each."""
BYPASS = "@bypass"
"""The location of nginx that processes a request without the cache."""

_Call = SharedCall[Answer | NotShared]


class CachedPredictions:
    """The route /cached/MODEL[/VERSION]."""

    def __init__(
        self,
        store: AnswerStore,
        registrations: Registrations,
        bodies: BodyReader,
        metrics: CacheMetrics,
        client: UncachedClient,
        key: str,
    ) -> None:
        """
        Args:
            store: The cached answers.
            registrations: Which version answers.
            bodies: Reads the requests within the cache's part of the gateway's memory.
            metrics: Counts the results.
            client: Sends requests to nginx's listener without the cache.
            key: The secret that nginx and the gateway share.
        """
        self._store = store
        self._registrations = registrations
        self._bodies = bodies
        self._metrics = metrics
        self._client = client
        self._key = key
        self._calls: dict[bytes, _Call] = {}
        self._bypassed_models = ExpiringSet(BYPASS_TTL_S, MAX_BYPASSED)
        self._bypassed_requests = ExpiringSet(BYPASS_TTL_S, MAX_BYPASSED)
        self._large_answers: Counter[str] = Counter()
        self._requests = 0
        self._ends: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        return [
            Route("/cached/{model}", self.predict, methods=["POST"]),
            Route("/cached/{model}/{version}", self.predict, methods=["POST"]),
        ]

    async def predict(self, request: Request) -> Response:
        """Answer a prediction from the store, from a call in progress, or from TorchServe."""
        check_key(request, self._key)
        response = None
        if self._requests < MAX_REQUESTS:
            self._requests += 1
            try:
                async with forward_context(request):
                    response = await self._answer(request)
            finally:
                self._requests -= 1
        if response is None:
            self._count("bypass")
            return Response(headers={"X-Accel-Redirect": BYPASS})
        return response

    async def _answer(self, request: Request) -> Response | None:
        """Return the response; None if the request must be processed without the cache."""
        directives = CacheDirectives.parse(request.headers)
        if (
            directives.no_store
            or request.headers.get("content-encoding", "identity") != "identity"
            or request.headers.get(ROUTE_HEADER) not in PATHS
            or self._registrations.is_paused
        ):
            return None
        answer_or_call = await self._find(request, directives)
        if not isinstance(answer_or_call, SharedCall):
            return answer_or_call
        with answer_or_call.join() as is_first:
            answer = await run_until_disconnect(request, answer_or_call.result())
        if isinstance(answer, NotShared) or (answer.has_cookie and not is_first):
            return None
        self._count("miss" if is_first else "coalesced")
        return _response(answer, 0.0, result="MISS" if is_first else "HIT")

    async def _find(self, request: Request, directives: CacheDirectives) -> Response | _Call | None:
        """Return a stored answer, or the call that computes it; None if the request must bypass the cache.

        Join the call at once. A request that waits for a call holds no body, the call itself holds one.
        """
        model, version = request.path_params["model"], request.path_params.get("version", "")
        # Ask for the version while the body arrives.
        check = asyncio.ensure_future(self._registrations.current(model, version))
        try:
            async with self._bodies.read(request, MAX_BODY_BYTES, BODY_COPIES) as body:
                registration = await check
                if registration is None or registration in self._bypassed_models:
                    return None
                key = _cache_key(registration, request, body)
                if key in self._bypassed_requests:
                    return None
                if not directives.no_cache:
                    if stored := self._store.get(key, directives.max_age_s):
                        self._count("hit")
                        return _response(*stored, result="HIT")
                    if (call := self._calls.get(key)) and call.is_joinable:
                        return call
                return self._begin(key, registration, request, bytes(body))
        except (Overloaded, TooLarge, HTTPException):
            return None
        finally:
            check.cancel()

    def _begin(self, key: bytes, registration: Registration, request: Request, body: bytes) -> _Call:
        """Start the call for a request."""
        route, requested_version = request.headers[ROUTE_HEADER], request.path_params.get("version", "")
        version = requested_version or (registration.version if route in VERSIONED_ROUTES else "")
        sent = self._client.build_request(
            route,
            registration.model,
            version,
            request.scope["query_string"],
            request.headers.raw,
            body,
        )
        is_pinned = version != requested_version
        call = self._calls[key] = SharedCall(self._send(sent, registration, is_pinned=is_pinned))
        self._bodies.use(BODY_COPIES * len(body))
        end = asyncio.ensure_future(self._end(call, key, registration, version, len(body)))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return call

    async def _send(
        self, sent: httpx.Request, registration: Registration, *, is_pinned: bool
    ) -> Answer | NotShared:
        """Return the answer of a registration.

        If `is_pinned`, `sent` names the default version although the request does not. After an error, that version
        may have been replaced and unregistered meanwhile. Then there is no answer, and the requests continue without
        the cache.
        """
        answer = await self._client.send(sent)
        if is_pinned and isinstance(answer, Answer) and (answer.status == 404 or answer.status >= 500):
            default = await self._registrations.current(registration.model, "")
            if default is not None and default.version != registration.version:
                return NotShared.LOST
        return answer

    async def _end(
        self, call: _Call, key: bytes, registration: Registration, version: str, body_bytes: int
    ) -> None:
        """Wait for the end of a call, and store its answer, until which requests can join the call.

        The answer is stored if `registration` answers requests to `version` before and after the call. Only if
        `version` is empty, on a route without VERSIONED_ROUTES, two changes of the default version within one call,
        there and back, are not noticed.
        """
        try:
            answer = await call.end()
            self._bodies.use(-BODY_COPIES * body_bytes)
            if answer is NotShared.STREAM:
                self._bypassed_models.add(registration)
            elif answer is NotShared.TOO_LARGE:
                self._bypassed_requests.add(key)
                self._large_answers[registration.model] += 1
                if self._large_answers[registration.model] >= MAX_LARGE_ANSWERS:
                    self._bypassed_models.add(registration)
            elif isinstance(answer, Answer) and answer.status == 200 and not answer.has_cookie:
                self._large_answers.pop(registration.model, None)
                current = await self._registrations.current(registration.model, version)
                if current == registration and self._calls.get(key) is call:
                    headers = tuple(header for header in answer.headers if header[0] != b"x-retried")
                    self._store.put(key, replace(answer, headers=headers))
        finally:
            if self._calls.get(key) is call:
                del self._calls[key]

    def _count(self, result: str) -> None:
        self._metrics.requests.labels(result).inc()


def _cache_key(registration: Registration, request: Request, body: bytearray) -> bytes:
    """Return the digest of a request to one registration of a model."""
    route = registration, request.headers[ROUTE_HEADER]
    return request_digest(route, request.scope["query_string"], request.headers.raw, body)


def _response(answer: Answer, age_s: float, *, result: str) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers += [*answer.headers, (b"x-cache", result.encode())]
    if result == "HIT":
        response.raw_headers.append((b"age", b"%d" % age_s))
    return response
