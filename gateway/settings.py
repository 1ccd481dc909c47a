"""What the gateway is told: where TorchServe is, and which models stand behind the routes that people know."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from client import Endpoints
from client.settings import MAX_MESSAGE_BYTES

TIMEOUT = 650.0
"""Seconds for one prediction: above any model's responseTimeout, below nginx's patience (proxy_read_timeout)."""


@dataclass(frozen=True)
class Settings:
    """`inference` and `management` are TorchServe's addresses.

    `image_model` answers /model, `summarizers` what /predict/text_summarize?model=KEY asks for; the first is its
    default. `health` is the supervisor's address. `strict`: whether readiness asks for every worker of every version.
    """

    inference: str = "http://127.0.0.1:8080"
    management: str = "http://127.0.0.1:8081"
    image_model: str = "resnet-50"
    summarizers: Mapping[str, str] = field(
        default_factory=lambda: {"t5": "t5-small", "bart": "bart-large-cnn"}
    )
    health: str = "http://127.0.0.1:8083"
    strict: bool = False
    max_body: int = MAX_MESSAGE_BYTES

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(inference=self.inference, management=self.management)
