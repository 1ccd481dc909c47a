"""Tests of decoding in several threads: order of answers and shares of the time limit."""

import threading
import time

import pytest

from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.shout import Shout
from tests.unit.handlers.sending import js, raw, send


class ParallelShout(Shout):
    """A handler that decodes in threads. `at_once` is the maximum number of concurrent calls of `decode`."""

    parallel_decode = True
    at_once = inside = 0
    threads: set[str] = set()  # noqa: RUF012

    def decode(self, payload, parameters):
        self.inside += 1
        self.at_once = max(self.at_once, self.inside)
        self.threads = self.threads | {threading.current_thread().name}
        time.sleep(0.3 if payload == "slow" else 0.02)
        self.inside -= 1
        return super().decode(payload, parameters)


@pytest.fixture
def parallel(tmp_path):
    context = FakeContext(tmp_path, {"handler": {"threads": 2}, "responseTimeout": 2.4})
    handler = ParallelShout()
    handler.initialize(context)
    return handler, context


def test_inputs_of_all_requests_are_decoded_in_parallel(parallel):
    handler, context = parallel
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["b", " ", "c"]}), raw("d"), raw("e"))
    assert statuses == [200, 400, 200, 200]
    assert answers[1]["message"] == "inputs[1]: the text is empty"
    assert [answer[0]["shout"] for answer in (answers[0], *answers[2:])] == ["A", "D", "E"]
    assert handler.at_once == 2
    assert handler.batches_run[-1] == ["a", "d", "e"]


def test_single_input_is_decoded_without_a_thread(parallel):
    handler, context = parallel
    answers, _ = send(handler, context, raw("a"))
    assert answers == [[{"shout": "A"}]]
    assert handler.threads == {threading.current_thread().name}


def test_slow_request_in_threads_does_not_use_the_time_of_its_neighbors(parallel):
    """A share is 0.2 s. Both threads decode the slow request until then, and its other inputs are not decoded."""
    handler, context = parallel
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["slow"] * 8}), raw("b"))
    assert statuses == [200, 503, 200]
    assert (answers[0], answers[2]) == ([{"shout": "A"}], [{"shout": "B"}])
