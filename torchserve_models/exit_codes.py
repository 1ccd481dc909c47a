"""Exit codes of all commands (table in docs/client.md)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    SUCCESS = 0
    FAILURE = 1
    """An input, a model or the server failed; for `status`: the server runs but is not ready."""
    USAGE = 2
    """The command line or config.properties is wrong; nothing was done."""
    NOT_RUNNING = 3
    """`status`: no server runs in the run folder."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM before the command finished."""
    TERMINATED = 143
    """`pack`: SIGTERM."""
