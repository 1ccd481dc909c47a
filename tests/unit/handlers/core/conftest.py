"""Fixtures: a handler that describes its inputs, and its context."""

import pytest

from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.echo import Echo


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path, {"handler": {"max_items": 3}}, model_name="echo")


@pytest.fixture
def handler(context):
    handler = Echo()
    handler.initialize(context)
    return handler
