"""Tests of asynchronous messages: order, and messages that cannot be delivered."""

import threading
import time

from torchserve_models.serving.metrics import MESSAGES_LOST
from torchserve_models.serving.supervisor.reporter import AsyncReporter


def lost():
    return MESSAGES_LOST._value.get()


def test_messages_are_delivered_in_order():
    reporter, messages = AsyncReporter(), []
    info, progress = reporter.wrap(messages.append), reporter.wrap(lambda text: messages.append(text.upper()))
    info("a")
    progress("b")
    info("c")
    reporter.flush()
    assert messages == ["a", "B", "c"]


def test_failing_sink_loses_only_its_message():
    reporter, messages = AsyncReporter(), []
    before = lost()

    def fail(_text):
        raise BrokenPipeError("nobody reads")

    reporter.wrap(fail)("a")
    reporter.wrap(messages.append)("b")
    reporter.flush()
    assert messages == ["b"]
    assert lost() == before + 1


def test_blocking_sink_does_not_block_callers():
    reporter, release = AsyncReporter(), threading.Event()
    before = lost()
    info = reporter.wrap(lambda _: release.wait(60))
    start = time.monotonic()
    for _ in range(3000):
        info("a")
    reporter.flush(0.1)
    assert time.monotonic() - start < 10
    assert lost() > before
    release.set()
