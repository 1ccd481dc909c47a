"""A handler that describes its inputs, and Open Inference requests to it."""

import json

import numpy as np

from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import Tensor
from tests.unit.handlers.sending import OPEN_INFERENCE


class Echo(Handler):
    """A handler whose answers describe the type and content of each input."""

    payload_fields = ("image", "data")

    def load(self, folder, config, device):
        pass

    def parameters(self):
        return (Parameter("times", int, low=1, high=3), Parameter("share", float, low=0, high=1))

    def decode(self, payload, parameters):
        kind = (
            f"{payload.dtype}{list(payload.shape)}"
            if isinstance(payload, np.ndarray)
            else type(payload).__name__
        )
        total = float(np.sum(payload)) if isinstance(payload, np.ndarray) else float(len(payload))
        return f"{kind} é{parameters.get('share', '')}" * parameters.get("times", 1), total

    def predict(self, items):
        return list(items)

    def encode(self, answer):
        return answer[0]

    def outputs(self, answers):
        shape = (len(answers),)
        return [
            Tensor("description", "BYTES", shape, [description for description, _ in answers]),
            Tensor("total", "FP32", shape, [total for _, total in answers]),
            Tensor("long", "BOOL", shape, [len(description) > 20 for description, _ in answers]),
        ]

    def warm_up(self):
        pass


def binary(inputs, contents=(), extra=b"", headers=None, **message):
    """Return a request of the binary data extension, with the inputs' contents after the JSON."""
    contents = list(contents)
    for tensor, content in zip(inputs, contents, strict=False):
        tensor.setdefault("parameters", {}).setdefault("binary_data_size", len(content))
    text = json.dumps({"inputs": inputs} | message).encode()
    length_headers = {"Inference-Header-Content-Length": str(len(text))} if headers is None else headers
    return {"body": bytearray(text + b"".join(contents) + extra)}, OPEN_INFERENCE | length_headers


def image(datatype="UINT8", shape=(2, 2, 3), **more):
    return {"name": "image", "datatype": datatype, "shape": list(shape)} | more


def handle(handler, context, *requests):
    """Send a batch. Return the raw answers and the statuses."""
    context.receive([headers for _, headers in requests])
    return handler.handle([fields for fields, _ in requests], context)


def one(handler, context, request):
    (body,) = handle(handler, context, request)
    return json.loads(body), context.statuses[0]


def outputs(answer):
    return {output["name"]: output["data"] for output in answer["outputs"]}


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
