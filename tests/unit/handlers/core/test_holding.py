"""A worker that is about to be ended keeps a describe call."""

import os
import threading
import time

from handlers.core import holding
from handlers.core.activity import ActivityWriter, read_activity
from handlers.core.holding import ask_to_hold, hold_if_asked


def test_a_worker_that_was_asked_keeps_one_describe_call(tmp_path):
    pid = 4711
    writer = ActivityWriter(tmp_path / str(pid))
    writer.begin_batch(0)
    ask_to_hold(tmp_path, pid)
    thread = threading.Thread(target=hold_if_asked, args=(writer, 0.5))
    thread.start()
    end = time.monotonic() + 10
    while not read_activity(writer.path).held:
        assert time.monotonic() < end
        time.sleep(0.01)
    thread.join(10)
    assert not thread.is_alive()
    assert not read_activity(writer.path).held
    assert [path.name for path in tmp_path.iterdir()] == [str(pid)]


def hold_does_nothing(writer):
    start = time.monotonic()
    hold_if_asked(writer, hold_s=60)
    return time.monotonic() - start < 30


def test_without_being_asked_nothing_is_kept(tmp_path):
    assert hold_does_nothing(ActivityWriter(tmp_path / "4711"))
    assert hold_does_nothing(ActivityWriter(None))


def test_what_was_asked_long_ago_is_forgotten(tmp_path):
    writer = ActivityWriter(tmp_path / "4711")
    ask_to_hold(tmp_path, 4711)
    asked = next(path for path in tmp_path.iterdir() if path != writer.path)
    old = time.time() - holding.ASKED_LIMIT_S - 1
    os.utime(asked, (old, old))
    assert hold_does_nothing(writer)
    assert not asked.exists()


def test_another_worker_is_not_held(tmp_path):
    ask_to_hold(tmp_path, 4712)
    assert hold_does_nothing(ActivityWriter(tmp_path / "4711"))
