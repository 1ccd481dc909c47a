"""Errors that end a benchmark or exclude one system from it. `str()` is the user-facing message."""


class BenchmarkError(Exception):
    """The run cannot continue: a wrong option or a missing folder."""


class SystemUnavailable(BenchmarkError):
    """A system cannot be installed or started on this machine. The report shows the reason."""


def last_line(text: str, default: str = "no output") -> str:
    """Return the last line of a program's output, which usually contains the reason for a failure."""
    return (text.strip().splitlines() or [default])[-1]
