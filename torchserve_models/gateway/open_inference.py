"""The Open Inference Protocol's metadata over REST, which TorchServe lacks. Its health routes: gateway/probes.py."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.client import Unavailable, UnexpectedAnswer
from torchserve_models.gateway.answers import Raw
from torchserve_models.gateway.descriptions import Descriptions
from torchserve_models.gateway.ttl_cache import TTLCache

# What the handlers know beyond the protocol's core.
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "torchserve"
METADATA_REMEMBERED = 10.0


class OpenInference:
    def __init__(
        self,
        descriptions: Descriptions,
        server: Callable[[], Awaitable[httpx.Response]],
    ) -> None:
        """`server` asks TorchServe for the protocol's server metadata."""
        self._server = server
        self._descriptions = descriptions
        self._metadata = TTLCache(self._describe, METADATA_REMEMBERED)

    def routes(self) -> list[Route]:
        found = [Route("/v2", self.server)]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found.append(Route(model, self.model))
        return found

    async def server(self, _: Request) -> Response:
        return Raw(await self.server_metadata())

    async def server_metadata(self) -> dict[str, Any]:
        """TorchServe's name and version as it says them itself."""
        try:
            said = (await self._server()).json()
            return {"name": said["name"], "version": said["version"], "extensions": EXTENSIONS}
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswer("TorchServe does not say what it is") from error

    async def model(self, request: Request) -> Response:
        return Raw(
            await self.model_metadata(request.path_params["model"], request.path_params.get("version"))
        )

    async def model_metadata(self, model: str, version: str | None) -> dict[str, Any]:
        """Raises TorchServeError."""
        metadata: dict[str, Any] = await self._metadata((model, version))
        return metadata

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
