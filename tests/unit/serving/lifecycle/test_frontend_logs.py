"""Tests of parsing logs in the format of log4j2.xml."""

from torchserve_models.serving.lifecycle import frontend_logs

STAMP = "2026-11-21T09:30:54,184"
SERVER = f"""\
{STAMP} INFO  main ModelServer - Loading initial models: crash.mar
{STAMP} INFO  W-9000-crash_starter-1a2b WorkerThread - Connecting to: /tmp/.ts.sock.9000
{STAMP} WARN  W-9000-crash_starter-1a2b BatchAggregator - Load model failed: crash, error: Worker died.
{STAMP} INFO  W-9000-crash_starter-1a2b WorkerThread - Retry worker: 9000 in 1 seconds.
{STAMP} INFO  W-9001-crash_more_1.0 WorkerThread - Connecting to: /tmp/.ts.sock.9001
""".splitlines()

TIMEOUT = f"""\
{STAMP} ERROR W-9000-slow_1 WorkerThread - Number or consecutive unsuccessful inference 1
{STAMP} ERROR W-9000-slow_1 WorkerThread - Backend worker error
org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time
\tat org.pytorch.serve.wlm.WorkerThread.run(WorkerThread.java:238) [model-server.jar:?]
{STAMP} INFO  W-9000-slow_1 WorkerThread - Retry worker: 9000 in 1 seconds.
{STAMP} INFO  W-9001-fast_1 WorkerThread - Retry worker: 9001 in 1 seconds.
""".splitlines()

REFUSED = f"""\
{STAMP} WARN  main ModelServer - Failed to load model: a.mar
org.pytorch.serve.archive.model.ModelNotFoundException: Model not found at: a.mar
\tat org.pytorch.serve.archive.model.ModelArchive.downloadModel(ModelArchive.java:75) ~[model-server.jar:?]
Caused by: java.io.FileNotFoundException: no such file
\tat java.io.FileInputStream.open(Unknown Source)
\t... 8 more
{STAMP} INFO  main ModelServer - Loading initial models: b.mar
""".splitlines()


def worker(output, name="crash_starter-1a2b", stream="stdout"):
    return [f"{STAMP} INFO  W-9000-{name}-{stream} - {line}" for line in output.splitlines()]


CHAINED = """\
model_name: crash, batchSize: 8
Backend worker process died.
Traceback (most recent call last):
  File "toy.py", line 5, in initialize
    {}["config"]
KeyError: 'config'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "toy.py", line 7, in initialize
    raise ValueError("wrong weights") from error
ValueError: wrong weights"""

SECOND_HAND = """\
Failed to load model crash, exception no such layer
Traceback (most recent call last):
  File "toy.py", line 1, in initialize
RuntimeError: no such layer
Backend worker process died.
Traceback (most recent call last):
  File "model_service_worker.py", line 199, in handle_connection
    raise RuntimeError("{} - {}".format(code, result))
RuntimeError: 500 - Unknown exception"""


def test_restarted_worker_has_died():
    assert list(frontend_logs.dead_workers(SERVER)) == ["crash_starter-1a2b"]
    assert list(frontend_logs.dead_workers(SERVER[:3])) == []


def test_timeout_is_attributed_to_its_worker():
    assert frontend_logs.timed_out(TIMEOUT, "slow_1")
    assert not frontend_logs.timed_out(TIMEOUT, "fast_1")
    assert not frontend_logs.timed_out(SERVER, "crash_starter-1a2b")


def test_rejected_archive_has_the_innermost_cause():
    (rejected,) = frontend_logs.rejected_archives(REFUSED)
    assert rejected == frontend_logs.RejectedArchive("a.mar", "java.io.FileNotFoundException: no such file")


def test_last_exception_is_the_reason():
    assert frontend_logs.find_traceback(worker(CHAINED), "crash_starter-1a2b") == "ValueError: wrong weights"


def test_original_exception_is_preferred_to_torchserves():
    reason = frontend_logs.find_traceback(worker(SECOND_HAND), "crash_starter-1a2b")
    assert reason == "RuntimeError: no such layer"


def test_lines_of_other_workers_are_ignored():
    lines = worker(CHAINED, "other_1") + worker("model_name: crash, batchSize: 8")
    assert frontend_logs.find_traceback(lines, "crash_starter-1a2b") is None
    message = frontend_logs.describe_missing_traceback(lines, "crash_starter-1a2b")
    assert "its last output line: model_name: crash" in message


def test_worker_without_output_has_no_reason():
    message = frontend_logs.describe_missing_traceback([], "crash_starter-1a2b")
    assert "its last output line: nothing" in message


def test_tail_returns_complete_lines_across_rotation(tmp_path):
    path = tmp_path / "server.log"
    path.write_text("old\n")
    tail = frontend_logs.LogTail(path)
    assert tail.lines() == []
    with open(path, "a") as file:
        file.write("one\ntw")
        file.flush()
        assert tail.lines() == ["one"]
        file.write("o\n")
    assert tail.lines() == ["two"]
    path.write_text("new\n")
    assert tail.lines() == ["new"]
    others = "\r\x0b\x0c\x1c\x85\u2028java.lang.OutOfMemoryError"  # as a client may send them
    with open(path, "a") as file:
        file.write(f"error: '{others}'\n")
    assert tail.lines() == [f"error: '{others}'"]
    path.unlink()
    assert tail.lines() == []
