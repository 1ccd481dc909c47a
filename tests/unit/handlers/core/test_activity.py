"""Tests of the activity file of a worker."""

import os
import subprocess
import sys
import time
from pathlib import Path

from handlers.core.activity import DIRECTORY_VARIABLE, ActivityWriter, read_activity

ROOT = Path(__file__).parents[4]


def test_idle_worker_is_not_computing(tmp_path):
    ActivityWriter(tmp_path / "1")

    activity = read_activity(tmp_path / "1")

    assert not activity.is_computing
    assert (activity.batches, activity.answers) == (0, 0)


def test_batch_is_visible_from_begin_to_end(tmp_path):
    writer = ActivityWriter(tmp_path / "1")
    before = time.monotonic()
    writer.begin_batch(3)
    computing = read_activity(tmp_path / "1")
    writer.advance()
    advanced = read_activity(tmp_path / "1")
    writer.end_batch()
    idle = read_activity(tmp_path / "1")

    assert computing.is_computing
    assert computing.batch_requests == 3
    assert before <= computing.batch_started <= advanced.progress <= idle.last_answer
    assert not idle.is_computing
    assert (idle.batches, idle.answers, idle.batch_requests) == (1, 3, 0)


def test_reader_never_sees_partial_update(tmp_path):
    writing = """if True:
        import sys
        from pathlib import Path
        from handlers.core.activity import ActivityWriter
        writer = ActivityWriter(Path(sys.argv[1]))
        writer.begin_batch(1)
        writer.end_batch()
        writer.begin_batch(1)
        print("begun", flush=True)
        while True:
            writer.advance()
    """
    path = tmp_path / "1"
    with subprocess.Popen(
        [sys.executable, "-c", writing, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as writer:
        writer.stdout.readline()
        activities = [read_activity(path) for _ in range(20_000)]
        writer.kill()

    assert {(activity.answers, activity.batch_requests, activity.batches) for activity in activities} == {
        (1, 1, 1)
    }
    assert min(activity.heartbeat for activity in activities) > 0


def test_heartbeat_advances_by_itself(tmp_path):
    writer = ActivityWriter(tmp_path / "1")
    first = read_activity(tmp_path / "1").heartbeat
    writer.start_heartbeat()
    deadline = time.monotonic() + 10

    while read_activity(tmp_path / "1").heartbeat <= first:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_folder_is_taken_from_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))

    ActivityWriter.from_environment()

    assert read_activity(tmp_path / str(os.getpid())) is not None


def test_writer_without_usable_folder_keeps_working(tmp_path, monkeypatch):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "missing"))

    ActivityWriter.from_environment().begin_batch(1)


def test_read_activity_returns_none_for_missing_or_short_file(tmp_path):
    (tmp_path / "2").write_bytes(b"short")

    assert read_activity(tmp_path / "1") is None
    assert read_activity(tmp_path / "2") is None
