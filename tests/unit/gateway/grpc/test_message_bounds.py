"""Limits on the number of fields and on the size of numbers in a message."""

import pytest

from tests.unit.gateway.grpc.grpc_calls import call, frame, infer
from torchserve_models.gateway.grpc import message_bounds


async def test_number_of_fields_is_limited(http):
    many = frame(b"\x2a\x00" * (message_bounds.MAX_FIELDS + 1))  # empty inputs
    _, status, details = await call(http, "ModelInfer", None, many)
    assert (status, "more than 20000 fields" in details) == (3, True)


def check(message):
    message_bounds.check_bounds(message.SerializeToString(), message_bounds.MODEL_INFER_REQUEST)


def test_size_of_numbers_is_limited(monkeypatch):
    monkeypatch.setattr(message_bounds, "MAX_NUMBER_BYTES", 100)
    few, many = ({"int64_contents": [1] * count} for count in (100, 101))
    check(infer(contents=few))
    check(infer(contents={"bytes_contents": [b"x" * 200]}, raw=b"x" * 200))
    with pytest.raises(message_bounds.TooLarge, match="send raw_input_contents"):
        check(infer(contents=many))


def test_number_of_map_entries_is_limited():
    entry = b"\x1a\x04\x0a\x00\x12\x00"  # an empty key and an empty value
    count = message_bounds.MAX_FIELDS // 3
    message_bounds.check_bounds(entry * count, message_bounds.PREDICTIONS_REQUEST)
    with pytest.raises(message_bounds.TooManyItems):
        message_bounds.check_bounds(entry * (count + 1), message_bounds.PREDICTIONS_REQUEST)
