"""Why TorchServe answered 503: it says the same of a full queue and of a model without a worker."""

from torchserve_models.client import (
    AsyncClient,
    InternalError,
    NotFound,
    Overloaded,
    TorchServeError,
    Unavailable,
)
from torchserve_models.gateway.ttl_cache import TTLCache

# TorchServe's whole answer where a handler raises; its length is all that nginx can tell us of an answer.
HANDLER_FAILED = (
    b'{\n  "code": 503,\n  "type": "InternalServerException",\n  "message": "Prediction failed"\n}\n'
)
# TorchServe's whole answer to the requests of a worker that died: 500, or 507 with a number of the same length. The
# template of deploy/nginx has its length.
WORKER_DIED = b'{\n  "code": 500,\n  "type": "InternalServerException",\n  "message": "Worker died."\n}\n'
REMEMBERED = 1.0
_OWN_WORDS = ("ServiceUnavailableException", "Overloaded")


class UnavailableDiagnosis:
    """What to tell a client whose request TorchServe refused with 503."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._busy = TTLCache(self._find, REMEMBERED)

    async def by_length(self, model: str, version: str, length: int) -> TorchServeError:
        """For nginx, which knows the length of TorchServe's answer and nothing else of it."""
        if length == len(HANDLER_FAILED):
            return _failed()
        return await self._busy((model, version))

    async def by_error(self, model: str, error: TorchServeError) -> TorchServeError:
        """For an error that the client raised; others than 503 stay as they are."""
        if error.code != 503:
            return error
        return await self._busy((model, "")) if error.type in _OWN_WORDS else _failed()

    async def _find(self, key: tuple[str, str]) -> TorchServeError:
        model, version = key
        try:
            described = await self._client.describe(model, version or None)
        except NotFound as error:
            return error
        except Unavailable:
            return Overloaded("TorchServe cannot be asked for its workers", code=503, type="Unavailable")
        except TorchServeError:  # it is there, but too busy to say
            return _overloaded(model)
        if any(worker.ready for worker in described.workers):
            return _overloaded(model)
        return Overloaded(f"the model '{model}' has no worker", code=503, type="NoWorker")


def _overloaded(model: str) -> TorchServeError:
    return Overloaded(f"the model '{model}' has more requests than it can queue; retry", code=429)


def _failed() -> TorchServeError:
    """Not the client's fault, and no reason to send it again."""
    return InternalError("the model's handler failed; the worker's log has the reason")
