"""Requests for a running server."""

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.runs import find_target
from tests.unit.loadgen.fixed_rate_server import FixedRateServer


def test_requests_are_of_the_kind_that_the_model_answers():
    with FixedRateServer(0.001) as server:
        target = find_target(f"http://127.0.0.1:{server.port}/path", "m", [b"jpeg"])
    assert target.requests[0].startswith(b"POST /path/predictions/m HTTP/1.1\r\nHost: 127.0.0.1:")
    assert (target.marker, target.count) == (b'"label"', 5)
    with pytest.raises(BenchmarkError, match="connection lost to an image; connection lost to a text"):
        find_target(f"http://127.0.0.1:{server.port}", "m", [b"jpeg"])
