"""The gateway's settings: TorchServe's addresses, the models of the compatibility routes, and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchserve_models.client import Endpoints

PREDICTION_TIMEOUT_S = 320.0
"""Longer than any model's responseTimeout, and shorter than nginx's upstream timeout (330 s)."""

MAX_TEXT_BODY_BYTES = 4 * 2**20
"""Four bytes for each of the 1,000,000 characters that a summarizer accepts."""

MAX_PIXEL_BODY_BYTES = 48 * 2**20
"""An image of 1920 x 1080 pixels takes 26 to 44 MB as JSON, depending on channels and white space."""

READ_TIMEOUT_S = 30.0
"""Limit for a whole body. nginx buffers bodies, so slow clients do not reach the gateway."""

BUDGET_BYTES = 64 * 2**20
"""Memory for the bodies of all requests, from their first byte to their response."""

MAX_CACHE_BYTES = 256 * 2**20
"""With the largest response cache, the gateway stays within the 512 MiB that the memory budget reserves for it."""

CACHE_TTL_S = 300.0
CACHE_CHECK_TIMEOUT_S = 1.0

IMAGE_ROUTES = ("/predict", "/predict/image_classes", "/model")
"""Image classification routes of other servers. Each route may use a different model."""


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of one gateway.

    Attributes:
        inference: URL of TorchServe's inference API.
        management: URL of TorchServe's management API.
        image_model: The model of IMAGE_ROUTES, except for those in `route_models`.
        route_models: Models of single IMAGE_ROUTES, by route.
        summarizers: The model for each value of `model` in /predict/text_summarize?model=KEY; the first is the
            default.
        health: URL of the supervisor's health server.
        strict: Whether readiness requires every worker of every version.
        max_body_bytes: Limit for a body that contains pixels.
        max_text_body_bytes: Limit for a body that contains text.
        body_budget_bytes: Memory for all request bodies that are being read, parsed or processed.
        body_timeout_s: Time limit for receiving a body.
        grpc_listen: Address of the gRPC server for health and reflection; empty for none.
        others: URLs of the inference APIs of further TorchServe servers that share the predictions.
        key: The secret that identifies nginx on the internal routes; empty to let every client use these routes.
        state_file: File to which scripts/gateway writes its restart counts.
        cache_bytes: Memory for the response cache; 0 for no cache.
        cache_ttl_s: Seconds for which a cached answer is used.
        cache_check_timeout_s: Seconds to wait for TorchServe's management API, which the cache asks for each request.
        uncached: URL of nginx's listener without the cache, see NginxConfig; the cache requires it.
        key_file: The file of the API keys; None for no checks.
    """

    inference: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    image_model: str = "resnet-50"
    route_models: Mapping[str, str] = field(default_factory=dict)
    summarizers: Mapping[str, str] = field(
        default_factory=lambda: {"t5": "t5-small", "bart": "bart-large-cnn"}
    )
    health: str = "http://127.0.0.1:8083"
    strict: bool = False
    max_body_bytes: int = MAX_PIXEL_BODY_BYTES
    max_text_body_bytes: int = MAX_TEXT_BODY_BYTES
    body_budget_bytes: int = BUDGET_BYTES
    body_timeout_s: float = READ_TIMEOUT_S
    grpc_listen: str = ""
    others: tuple[str, ...] = ()
    key: str = ""
    state_file: Path | None = None
    cache_bytes: int = 0
    cache_ttl_s: float = CACHE_TTL_S
    cache_check_timeout_s: float = CACHE_CHECK_TIMEOUT_S
    uncached: str = ""
    key_file: Path | None = None

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(inference=self.inference, management=self.management)

    def model_of(self, route: str) -> str:
        """Return the model of one of IMAGE_ROUTES."""
        return self.route_models.get(route, self.image_model)
