"""Responses of the Open Inference Protocol: outputs in JSON and as binary data."""

import json
import struct

import numpy as np

from handlers.core.tensor import pack_bytes
from tests.unit.handlers.core.echo import PIXELS, binary, handle, image, one, outputs


def read_binary(body, headers):
    """Parse a binary response as tritonclient does."""
    length = int(headers["Inference-Header-Content-Length"])
    message, remaining, outputs_by_name = json.loads(body[:length]), body[length:], {}
    for output in message["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        outputs_by_name[output["name"]] = output["data"] if size is None else remaining[:size]
        remaining = remaining[size or 0 :]
    assert remaining == b""
    return message, outputs_by_name


def test_outputs_are_sent_as_binary_data(handler, context):
    request = binary([image()], [PIXELS.tobytes()], parameters={"binary_data_output": True})
    (body,) = handle(handler, context, request)
    message, outputs_by_name = read_binary(body, context.response_headers[0])
    assert context.types[0] == "application/octet-stream"
    assert outputs_by_name["description"] == pack_bytes(["uint8[2, 2, 3] é".encode()])
    assert np.frombuffer(outputs_by_name["total"], "<f4").tolist() == [66.0]
    assert outputs_by_name["long"] == b"\0"
    assert [output["shape"] for output in message["outputs"]] == [[1]] * 3


def test_binary_data_is_chosen_per_output(handler, context):
    requested = [{"name": "total", "parameters": {"binary_data": True}}, {"name": "description"}]
    (body,) = handle(handler, context, binary([image()], [PIXELS.tobytes()], outputs=requested))
    message, outputs_by_name = read_binary(body, context.response_headers[0])
    assert [output["name"] for output in message["outputs"]] == ["total", "description"]
    assert outputs_by_name == {"total": struct.pack("<f", 66), "description": ["uint8[2, 2, 3] é"]}
    requested[0]["parameters"]["binary_data"] = False
    request = binary(
        [image()], [PIXELS.tobytes()], outputs=requested, parameters={"binary_data_output": True}
    )
    (body,) = handle(handler, context, request)
    assert read_binary(body, context.response_headers[0])[1]["total"] == [66.0]


def test_json_response_has_no_header_length(handler, context):
    answer, _ = one(handler, context, binary([image()], [PIXELS.tobytes()], outputs=[{"name": "total"}]))
    assert context.response_headers[0] == {}
    assert context.types[0] == "application/json"
    assert outputs(answer) == {"total": [66.0]}
