"""Routes that only nginx calls: the reason for TorchServe's 503 response, and the permission to retry a request."""

import hmac

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.gateway.responses import error_response
from torchserve_models.gateway.upstream.forwarding import forward_context, run_until_disconnect
from torchserve_models.gateway.upstream.retry_transport import RecoveryWaiter
from torchserve_models.gateway.upstream.unavailable_diagnosis import UnavailableDiagnosis

KEY_HEADER = "x-gateway-key"


class InternalRoutes:
    """The routes /refusals and /wait."""

    def __init__(self, key: str, diagnosis: UnavailableDiagnosis, recovery: RecoveryWaiter) -> None:
        """Create the routes.

        Args:
            key: The secret that nginx sends in KEY_HEADER; without one, every client may use the routes.
            diagnosis: Finds the reason for a 503 response.
            recovery: Waits until a restarting model is ready.
        """
        self._key = key
        self._diagnosis = diagnosis
        self._recovery = recovery

    def routes(self) -> list[Route]:
        return [
            Route("/refusals/{model}", self.diagnose),
            Route("/refusals/{model}/{version:path}", self.diagnose),
            Route("/wait/{model}", self.wait),
            Route("/wait/{model}/{version:path}", self.wait),
        ]

    async def diagnose(self, request: Request) -> Response:
        """Replace TorchServe's 503 response by one that states the reason."""
        check_key(request, self._key)
        model, version = request.path_params["model"], request.path_params.get("version", "")
        text = request.query_params.get("length", "")
        length = int(text) if text.isdecimal() else 0
        return error_response(await self._diagnosis.diagnose_length(model, version, length))

    async def wait(self, request: Request) -> Response:
        """Respond 204 once nginx may retry a request whose connection to TorchServe broke.

        The response is 403 if nginx must not retry the request, and 504 after the request's deadline.
        """
        check_key(request, self._key)
        model, version = request.path_params["model"], request.path_params.get("version")
        async with forward_context(request):
            is_ready = await run_until_disconnect(request, self._recovery.until_ready(model, version or None))
        return Response(status_code=204 if is_ready else 403)


def check_key(request: Request, key: str) -> None:
    """Raise HTTPException (404) unless nginx sent the request, which then has `key`. An empty key allows all."""
    sent = request.headers.get(KEY_HEADER, "").encode()
    if key and not hmac.compare_digest(sent, key.encode()):
        raise HTTPException(404)
