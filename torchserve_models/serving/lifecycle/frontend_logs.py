"""Parse the logs of the front end and the workers: failed workers and rejected archives, with the reasons."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# As log4j2.xml writes them. A worker's threads are called W-<number>-<model>_<version>.
_RETRY = re.compile(r"^\S+ INFO +W-\d+-(?P<worker>\S+) WorkerThread - Retry worker: \d+ in \d+ seconds")
_THREAD = re.compile(r"^\S+ \w+ +W-\d+-(?P<worker>\S+) \w+ - ")
_REJECTED = re.compile(r"^\S+ WARN +\S+ ModelServer - Failed to load model: (?P<archive>\S+)")
_WORKER = re.compile(r"^\S+ \w+ +W-\d+-(?P<worker>\S+)-std(?:out|err) - (?P<text>.*)$")
_EXCEPTION = re.compile(r"^[\w.$]+(?:Exception|Error)\b.*")
_TIMED_OUT = re.compile(r"\bBackend worker (?:did not respond in given time|startup time out)")
# The errors that ts/model_service_worker.py raises after it has logged the actual reason.
_WRAPPER_ERROR = re.compile(r"^RuntimeError: \d{3} - (?:Unknown exception|System out of memory)$")


class LogTail:
    """Reader of the lines appended to a file, across log rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = _size(path)

    def lines(self) -> list[str]:
        """Return the complete lines appended since the last call.

        Only a line feed ends a line: TorchServe logs bytes from clients, which may contain other separators.
        """
        if _size(self._path) < self._offset:
            self._offset = 0
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data.decode(errors="replace").split("\n")[:-1]


@dataclass(frozen=True)
class RejectedArchive:
    """Archive that the front end rejected, with Java's exception as the reason."""

    archive: str
    reason: str


def dead_workers(lines: Sequence[str]) -> Iterator[str]:
    """Yield `<model>_<version>` of each worker that ended and will be restarted."""
    for line in lines:
        if match := _RETRY.match(line):
            yield match["worker"]


def timed_out(lines: Sequence[str], worker: str) -> bool:
    """Return whether the front end ended the worker because it took too long to load."""
    is_worker_line = False
    for line in lines:
        if match := _THREAD.match(line):
            is_worker_line = match["worker"] == worker
        if is_worker_line and _TIMED_OUT.search(line):
            return True
    return False


def rejected_archives(lines: Sequence[str]) -> Iterator[RejectedArchive]:
    """Yield rejected archives with Java's innermost cause."""
    for number, line in enumerate(lines):
        if match := _REJECTED.match(line):
            causes = []
            for following in lines[number + 1 :]:
                text = following.removeprefix("Caused by: ")
                if _EXCEPTION.match(text):
                    causes.append(text)
                elif not following.startswith(("\t", " ")):
                    break
            yield RejectedArchive(match["archive"], causes[-1] if causes else "TorchServe logged no reason")


def last_line(output: Path) -> str:
    """Return the last line that Java printed, except warnings of the Java runtime."""
    try:
        lines = output.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    printed = [
        line for line in lines if line.strip() and not line.startswith(("WARNING:", "\tat ", "nvidia-smi"))
    ]
    return printed[-1] if printed else "Java printed no message"


def find_traceback(lines: Sequence[str], worker: str) -> str | None:
    """Return the exception of the worker's last traceback, or None. TorchServe's own errors do not count."""
    reasons = [
        reason for reason in _tracebacks(_worker_output(lines, worker)) if not _WRAPPER_ERROR.match(reason)
    ]
    return reasons[-1] if reasons else None


def describe_missing_traceback(lines: Sequence[str], worker: str) -> str:
    """Return the message for a worker that ended without a traceback, with the last line that it printed."""
    last = ([*_worker_output(lines, worker)] or ["nothing"])[-1]
    return f"the worker ended without a traceback (killed, or out of memory?); its last output line: {last}"


def _worker_output(lines: Sequence[str], worker: str) -> Iterator[str]:
    for line in lines:
        if (match := _WORKER.match(line)) and match["worker"] == worker:
            yield match["text"]


def _tracebacks(output: Iterable[str]) -> Iterator[str]:
    """Yield the exception line of each traceback."""
    inside = False
    for text in output:
        if text.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and text and not text.startswith(" "):
            inside = False
            yield text


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
