"""The Open Inference Protocol's metadata routes, which TorchServe lacks. Its health routes are in probes.py."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.client import Unavailable, UnexpectedAnswer
from torchserve_models.gateway.responses import UnicodeJSONResponse
from torchserve_models.gateway.ttl_cache import TTLCache
from torchserve_models.gateway.upstream.model_descriptions import ModelDescriptions

# Optional parts of the protocol that the handlers support.
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "torchserve"
METADATA_TTL_S = 10.0


class OpenInferenceMetadata:
    """The metadata of the server and its models, and the routes that return it."""

    def __init__(
        self,
        descriptions: ModelDescriptions,
        server: Callable[[], Awaitable[httpx.Response]],
    ) -> None:
        """Create the routes.

        Args:
            descriptions: Describes the models.
            server: Fetches TorchServe's server metadata.
        """
        self._server = server
        self._descriptions = descriptions
        self._metadata = TTLCache(self._describe, METADATA_TTL_S)

    def routes(self) -> list[Route]:
        return [
            Route("/v2", self.server),
            Route("/v2/models/{model}", self.model),
            Route("/v2/models/{model}/versions/{version}", self.model),
        ]

    async def server(self, _: Request) -> Response:
        return UnicodeJSONResponse(await self.server_metadata())

    async def server_metadata(self) -> dict[str, Any]:
        """Return TorchServe's name, version and extensions. Raises Unavailable or UnexpectedAnswer."""
        try:
            server = (await self._server()).json()
            return {"name": server["name"], "version": server["version"], "extensions": EXTENSIONS}
        except httpx.HTTPError as error:
            raise Unavailable(f"TorchServe does not answer: {error or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswer("TorchServe's server metadata has no name or version") from error

    async def model(self, request: Request) -> Response:
        return UnicodeJSONResponse(
            await self.model_metadata(request.path_params["model"], request.path_params.get("version"))
        )

    async def model_metadata(self, model: str, version: str | None) -> dict[str, Any]:
        """Return a model's metadata, of the default version if `version` is None. Raises TorchServeError."""
        metadata: dict[str, Any] = await self._metadata((model, version))
        return metadata

    async def _describe(self, key: tuple[str, str | None]) -> dict[str, Any]:
        description = await self._descriptions.fetch(*key)
        return {
            "name": description.name,
            "versions": list(description.versions),
            "platform": PLATFORM,
            "inputs": description.metadata.get("inputs", []),
            "outputs": description.metadata.get("outputs", []),
            "parameters": description.metadata.get("parameters", []),
        }
