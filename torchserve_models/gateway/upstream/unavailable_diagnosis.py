"""Diagnosis of TorchServe's 503 responses: a full queue, no worker, or a failed handler."""

from torchserve_models.client import (
    AsyncClient,
    InternalError,
    NotFound,
    Overloaded,
    TorchServeError,
    Unavailable,
    readiness,
)
from torchserve_models.gateway.ttl_cache import TTLCache

# TorchServe's response body when a handler raises. nginx can only pass on its length.
HANDLER_FAILED = (
    b'{\n  "code": 503,\n  "type": "InternalServerException",\n  "message": "Prediction failed"\n}\n'
)
# TorchServe's response body for the requests of a worker that died: code 500, or 507, which has the same length. The
# template in deploy/nginx contains this length.
WORKER_DIED = b'{\n  "code": 500,\n  "type": "InternalServerException",\n  "message": "Worker died."\n}\n'
DIAGNOSIS_TTL_S = 1.0
_QUEUE_FULL_TYPES = ("ServiceUnavailableException", "Overloaded")


class UnavailableDiagnosis:
    """Replaces TorchServe's 503 responses by errors that state the reason."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._unavailable = TTLCache(self._diagnose, DIAGNOSIS_TTL_S)

    async def diagnose_length(self, model: str, version: str, length: int) -> TorchServeError:
        """Return the error for a 503 response, from the length of its body, which is all that nginx can pass on."""
        if length == len(HANDLER_FAILED):
            return _handler_failed()
        return await self._unavailable((model, version))

    async def diagnose_error(self, model: str, error: TorchServeError) -> TorchServeError:
        """Return the error to report for an error of the client library. Only 503 errors are replaced."""
        if error.code != 503:
            return error
        if error.type in _QUEUE_FULL_TYPES:
            return await self._unavailable((model, ""))
        return _handler_failed()

    async def _diagnose(self, key: tuple[str, str]) -> TorchServeError:
        model, version = key
        try:
            described = await self._client.describe(model, version or None)
        except NotFound as error:
            return error
        except Unavailable:
            return Overloaded("TorchServe's management API does not respond", code=503, type="Unavailable")
        except TorchServeError:  # the management API responds, but is too busy
            return _overloaded(model)
        if readiness.is_busy(described.state):
            return _overloaded(model)
        return Overloaded(f"the model '{model}' has no worker", code=503, type="NoWorker")


def _overloaded(model: str) -> TorchServeError:
    return Overloaded(f"the model '{model}' has more requests than it can queue; retry", code=429)


def _handler_failed() -> TorchServeError:
    """Return an error that clients do not retry."""
    return InternalError("the model's handler failed; the worker's log has the reason")
