"""The two scenarios: labels of images, and summaries of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.scenarios.resnet_weights import LABEL_MARKER
from benchmarks.scenarios.text_models import WORD, TextModel
from benchmarks.scenarios.workloads import WORKLOADS, TextRequest, make_probe
from torchserve_models.loadgen import Target

LABELS_PER_ANSWER = 5
TEXT_TIMEOUT_S = 900.0
"""Long enough for the slowest system, which processes 32 requests one after another."""
WARM_UP_TOKENS = 8

BuildRequest = Callable[[Any], bytes]
"""A function that returns the complete HTTP request for an image (`bytes`) or a `TextRequest`."""


@dataclass(frozen=True)
class ImageScenario:
    """JPEG images for the model in `folder`, which returns its five best labels."""

    folder: Path
    images: tuple[bytes, ...]
    task = "image"
    served_as = "resnet-50"

    def probe_target(self, build_request: BuildRequest, port: int) -> Target:
        requests = tuple(build_request(image) for image in self.images)
        return Target("127.0.0.1", port, requests, LABEL_MARKER.encode(), LABELS_PER_ANSWER)


@dataclass(frozen=True)
class TextScenario:
    """Texts of several workloads for one summarizer. The number of words of an answer is that of requested tokens."""

    model: TextModel
    folder: Path
    task = "text"

    @property
    def served_as(self) -> str:
        return self.model.served_as

    def probe_target(self, build_request: BuildRequest, port: int) -> Target:
        return self._target(build_request, port, [make_probe(self.model)])

    def targets(self, build_request: BuildRequest, port: int, workload: str) -> tuple[Target, Target]:
        """Return the requests of a workload, and requests for short summaries of the same texts."""
        requests = WORKLOADS[workload].requests(self.model)
        short = [replace(request, new_tokens=min(WARM_UP_TOKENS, request.new_tokens)) for request in requests]
        return self._target(build_request, port, requests), self._target(build_request, port, short)

    def _target(self, build_request: BuildRequest, port: int, requests: Sequence[TextRequest]) -> Target:
        tokens = tuple(request.new_tokens for request in requests)
        http_requests = tuple(build_request(request) for request in requests)
        target = Target("127.0.0.1", port, http_requests, WORD.encode(), tokens, timeout=TEXT_TIMEOUT_S)
        return replace(target, slack=self.model.slack, tokens=tokens)


Scenario = ImageScenario | TextScenario
