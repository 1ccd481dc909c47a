"""Tests of holding a worker before it is stopped."""

import os
import threading
import time

from handlers.core import worker_hold
from handlers.core.activity import ActivityWriter, read_activity
from handlers.core.worker_hold import hold_if_requested, request_hold


def test_requested_hold_delays_one_describe_call(tmp_path):
    pid = 4711
    writer = ActivityWriter(tmp_path / str(pid))
    writer.begin_batch(0)
    request_hold(tmp_path, pid)
    thread = threading.Thread(target=hold_if_requested, args=(writer, 0.5))
    thread.start()
    end = time.monotonic() + 10
    while not read_activity(writer.path).on_hold:
        assert time.monotonic() < end
        time.sleep(0.01)
    thread.join(10)
    assert not thread.is_alive()
    assert not read_activity(writer.path).on_hold
    assert [path.name for path in tmp_path.iterdir()] == [str(pid)]


def hold_does_nothing(writer):
    start = time.monotonic()
    hold_if_requested(writer, hold_s=60)
    return time.monotonic() - start < 30


def test_describe_call_without_request_is_not_delayed(tmp_path):
    assert hold_does_nothing(ActivityWriter(tmp_path / "4711"))
    assert hold_does_nothing(ActivityWriter(None))


def test_old_hold_request_is_ignored(tmp_path):
    writer = ActivityWriter(tmp_path / "4711")
    request_hold(tmp_path, 4711)
    request_file = next(path for path in tmp_path.iterdir() if path != writer.path)
    old = time.time() - worker_hold.MAX_REQUEST_AGE_S - 1
    os.utime(request_file, (old, old))
    assert hold_does_nothing(writer)
    assert not request_file.exists()


def test_hold_request_does_not_affect_other_workers(tmp_path):
    request_hold(tmp_path, 4712)
    assert hold_does_nothing(ActivityWriter(tmp_path / "4711"))
