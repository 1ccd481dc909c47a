"""The route that nginx calls for each request (`auth_request`) to check its API key.

The answer is 204, 401 or 403, because nginx treats other statuses as errors; REASON_HEADER contains the reason, from
which nginx derives the response to the client.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchserve_models.client import AccessDenied
from torchserve_models.gateway.internal_routes import check_key
from torchserve_models.gateway.keys.api_key import MANAGEMENT, METRICS, ApiKey
from torchserve_models.gateway.keys.key_file import KeyFileError
from torchserve_models.gateway.keys.key_store import KeyStore

REASON_HEADER = "X-Admission"
KEY_ID_HEADER = "X-Edge-Key-Id"
"""nginx's header with the id of the checked key, for requests to the gateway."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Admission:
    """The routes /admit/SCOPE[/MODEL], and the check of models that only the gateway knows."""

    def __init__(
        self,
        store: KeyStore,
        summarizers: Mapping[str, str],
        gateway_key: str,
        registry: CollectorRegistry,
    ) -> None:
        """
        Args:
            store: The keys.
            summarizers: The models of /predict/text_summarize, see GatewaySettings.
            gateway_key: The secret that nginx and the gateway share.
            registry: Receives the metric.
        """
        self._store = store
        self._summarizers = summarizers
        self._gateway_key = gateway_key
        self._results = Counter(
            "gateway_key_checks_total",
            "Checks of API keys, by the key's id and by result.",
            ["key", "result"],
            registry=registry,
        )

    def routes(self) -> list[Route]:
        return [
            Route("/admit/inference/{model}", self.admit_model),
            Route("/admit/summarizer", self.admit_summarizer),
            Route("/admit/{scope}", self.admit_scope),
        ]

    async def admit_model(self, request: Request) -> Response:
        """Check the scope for one model."""
        return self._admit(request, model=request.path_params["model"])

    async def admit_summarizer(self, request: Request) -> Response:
        """Check the scope for the model that the query of /predict/text_summarize selects."""
        keys = request.query_params.getlist("model") or [next(iter(self._summarizers))]
        # The route itself rejects several or unknown keys.
        return self._admit(request, model=self._summarizers.get(keys[0], "") if len(keys) == 1 else "")

    async def admit_scope(self, request: Request) -> Response:
        """Check a scope that does not name a model."""
        return self._admit(request, scope=request.path_params["scope"])

    def check_model(self, request: Request, model: str) -> None:
        """Check the scope of a request whose model is in its body.

        Raises:
            AccessDenied: The key that nginx has checked may not use the model.
        """
        key = self._store.get(request.headers.get(KEY_ID_HEADER, ""))
        if key is None or not key.allows_model(model):
            raise AccessDenied(f"the API key lacks the scope inference of the model {model[:60]!r}")

    def _admit(self, request: Request, *, scope: str = "", model: str | None = None) -> Response:
        check_key(request, self._gateway_key)
        text = request.headers.get("x-api-key", "")
        if not text:
            return self._reject(401, "missing", None)
        try:
            key = self._store.find(text)
        except KeyFileError:
            return Response(status_code=503)
        if key is None:
            return self._reject(401, "unknown", None)
        if not (_allows(key, scope) if model is None else key.allows_model(model)):
            return self._reject(403, "scope", key)
        if not self._store.is_within_rate(key):
            return self._reject(403, "rate", key)
        self._results.labels(key.id, "admitted").inc()
        return Response(status_code=204, headers={KEY_ID_HEADER: key.id})

    def _reject(self, status: int, reason: str, key: ApiKey | None) -> Response:
        key_id = key.id if key else ""
        self._results.labels(key_id, reason).inc()
        challenge = _CHALLENGE if status == 401 else {}
        return Response(
            status_code=status, headers={REASON_HEADER: reason, KEY_ID_HEADER: key_id, **challenge}
        )


def _allows(key: ApiKey, scope: str) -> bool:
    """Return whether the key has a scope of nginx's locations. Unknown scopes are denied."""
    match scope:
        case "inference":
            return key.allows_every_model
        case "any-model":
            return key.allows_any_model
        case _:
            return scope in (MANAGEMENT, METRICS) and scope in key.scopes
