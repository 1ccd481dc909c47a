"""LitServe with batching: https://lightning.ai/docs/litserve/speed-up-serving-by-200x."""

import base64
import json

from benchmarks.systems.peer import Peer, Stage
from torchserve_models.loadgen import post_request


class LitServe(Peer):
    name = "litserve"
    title = "LitServe, batching"

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "python"), "app.py"]]

    def request(self, image: bytes) -> bytes:
        body = json.dumps({"image_data": base64.b64encode(image).decode()})
        return post_request(self.path, body.encode(), "application/json")
