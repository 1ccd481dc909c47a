"""Limits on the number of fields and on the size of numbers in a message."""

import pytest

from tests.unit.gateway.grpc.grpc_calls import call, frame, infer
from torchserve_models.gateway.grpc import message_bounds


async def test_number_of_fields_is_limited(http):
    many = frame(b"\x2a\x00" * (message_bounds.MAX_FIELDS + 1))  # empty inputs
    _, status, details = await call(http, "ModelInfer", None, many)
    assert (status, "more than 20000 fields" in details) == (3, True)


def test_size_of_numbers_is_limited(monkeypatch):
    monkeypatch.setattr(message_bounds, "MAX_NUMBER_BYTES", 100)
    few, many = ({"int64_contents": [1] * count} for count in (100, 101))
    message_bounds.check_bounds(infer(contents=few).SerializeToString())
    message_bounds.check_bounds(
        infer(contents={"bytes_contents": [b"x" * 200]}, raw=b"x" * 200).SerializeToString()
    )
    with pytest.raises(message_bounds.TooLarge, match="send raw_input_contents"):
        message_bounds.check_bounds(infer(contents=many).SerializeToString())
