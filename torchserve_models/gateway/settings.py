"""What the gateway is told: where TorchServe is, and which models stand behind the routes that people know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchserve_models.client import Endpoints
from torchserve_models.gateway.bodies import BUDGET_BYTES, READ_TIMEOUT_S

TIMEOUT = 320.0
"""Seconds for one prediction: above any model's responseTimeout, below nginx's upstream_timeout (330 s)."""

MAX_TEXT_BODY_BYTES = 4 * 2**20
"""Four bytes for each of the 1,000,000 characters that a summarizer reads at most."""

MAX_PIXEL_BODY_BYTES = 48 * 2**20
"""JSON of an image of 1920 x 1080 pixels: 26 to 44 MB, by its channels and white space."""

IMAGE_ROUTES = ("/predict", "/predict/image_classes", "/model")
"""Routes of other servers that classify an image; each may have a model of its own."""


@dataclass(frozen=True)
class Settings:
    """`inference` and `management` are TorchServe's addresses.

    `image_model` answers IMAGE_ROUTES, but for those that `route_models` gives another model. `summarizers`: what
    /predict/text_summarize?model=KEY asks for; the first is its default. `health` is the supervisor's address.
    `strict`: whether readiness asks for every worker of every version. `max_body` and `max_text_body`: bytes of a
    body of pixels and of one of text. `body_budget`: bytes of memory for all bodies that are read, parsed or waited
    for. `key`: what nginx proves itself with on the inner route /refusals; empty for none. `state_file`: where
    scripts/gateway writes what it restarted.
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
    max_body: int = MAX_PIXEL_BODY_BYTES
    max_text_body: int = MAX_TEXT_BODY_BYTES
    body_budget: int = BUDGET_BYTES
    body_timeout: float = READ_TIMEOUT_S
    key: str = ""
    state_file: Path | None = None

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(inference=self.inference, management=self.management)

    def model_of(self, route: str) -> str:
        """The model that answers one of IMAGE_ROUTES."""
        return self.route_models.get(route, self.image_model)
