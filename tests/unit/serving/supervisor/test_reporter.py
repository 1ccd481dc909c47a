"""Messages are delivered in order; what cannot be delivered is counted and forgotten."""

import threading
import time

from torchserve_models.serving.metrics import MESSAGES_LOST
from torchserve_models.serving.supervisor.reporter import Reporter


def lost():
    return MESSAGES_LOST._value.get()


def test_messages_come_in_order():
    reporter, told = Reporter(), []
    info, progress = reporter.wrap(told.append), reporter.wrap(lambda text: told.append(text.upper()))
    info("a")
    progress("b")
    info("c")
    reporter.flush()
    assert told == ["a", "B", "c"]


def test_a_sink_that_fails_costs_its_message_only():
    reporter, told = Reporter(), []
    before = lost()

    def fail(_text):
        raise BrokenPipeError("nobody reads")

    reporter.wrap(fail)("a")
    reporter.wrap(told.append)("b")
    reporter.flush()
    assert told == ["b"]
    assert lost() == before + 1


def test_a_sink_that_blocks_holds_nobody_up():
    reporter, release = Reporter(), threading.Event()
    before = lost()
    info = reporter.wrap(lambda _: release.wait(60))
    start = time.monotonic()
    for _ in range(3000):
        info("a")
    reporter.flush(0.1)
    assert time.monotonic() - start < 10
    assert lost() > before
    release.set()
