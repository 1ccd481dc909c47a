"""The Open Inference Protocol's REST routes that TorchServe lacks, or answers with constants."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client import AsyncClient, ServeError, Unavailable, UnexpectedAnswer
from gateway.answers import Raw
from gateway.described import Descriptions
from gateway.readiness import Readiness
from gateway.remembered import Remembered

# What the handlers know beyond the protocol's core.
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "torchserve"
METADATA_REMEMBERED = 10.0


class OpenInference:
    """False is answered with 503, as load balancers read the status alone, and with the reason."""

    def __init__(
        self,
        client: AsyncClient,
        descriptions: Descriptions,
        readiness: Readiness,
        server: Callable[[], Awaitable[httpx.Response]],
    ) -> None:
        """`server` asks TorchServe for the protocol's server metadata."""
        self._server = server
        self._client = client
        self._descriptions = descriptions
        self._readiness = readiness
        self._metadata = Remembered(self._describe, METADATA_REMEMBERED)

    def routes(self) -> list[Route]:
        found = [
            Route("/v2", self.server),
            Route("/v2/", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/ping", self.ping),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [Route(model, self.model), Route(f"{model}/ready", self.model_ready)]
        return found

    async def server(self, _: Request) -> Response:
        """TorchServe's name and version as it says them itself."""
        try:
            said = (await self._server()).json()
            return Raw({"name": said["name"], "version": said["version"], "extensions": EXTENSIONS})
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswer("TorchServe does not say what it is") from error

    async def live(self, _: Request) -> Response:
        """Whether TorchServe's front end answers."""
        try:
            problem = None if await self._client.server_live() else "TorchServe says no"
        except ServeError as error:
            problem = f"TorchServe does not answer: {error.message}"
        return _health({}, "live", problem)

    async def ready(self, _: Request) -> Response:
        return _health({}, "ready", await self._readiness.server())

    async def ping(self, _: Request) -> Response:
        """TorchServe's own form of the same question."""
        problem = await self._readiness.server()
        return Raw({"status": "Unhealthy", "reason": problem} if problem else {"status": "Healthy"},
                   503 if problem else 200)  # fmt: skip

    async def model_ready(self, request: Request) -> Response:
        model, version = request.path_params["model"], request.path_params.get("version")
        return _health({"name": model}, "ready", await self._readiness.model(model, version))

    async def model(self, request: Request) -> Response:
        key = request.path_params["model"], request.path_params.get("version")
        return Raw(await self._metadata(key))

    async def _describe(self, key: tuple[str, str | None]) -> dict[str, Any]:
        found = await self._descriptions.one(*key)
        return {
            "name": found.name,
            "versions": list(found.versions),
            "platform": PLATFORM,
            "inputs": found.metadata.get("inputs", []),
            "outputs": found.metadata.get("outputs", []),
            "parameters": found.metadata.get("parameters", []),
        }


def _health(first: dict[str, Any], word: str, problem: str | None) -> Response:
    body = first | {word: problem is None} | ({"reason": problem} if problem else {})
    return Raw(body, 503 if problem else 200)
