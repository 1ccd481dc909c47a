"""What can go wrong while serving: one tree, each message says what to do.

RunError
 ├ ConfigError        config.properties cannot be used
 ├ PortTaken          something else listens where the server would
 ├ AlreadyRunning     a server runs in this run folder
 ├ NotRunning         none does
 ├ FrontendFailed     the Java front end did not start, or ended by itself
 ├ ModelFailed        a model cannot be loaded, or does not answer
 └ Interrupted        somebody asked for the end before the start was over
"""

from typing import ClassVar


class RunError(Exception):
    """Anything that keeps the server from running; `str()` is a message for a person."""

    exit_code: ClassVar[int] = 1


class ConfigError(RunError):
    """config.properties is missing, has a line that is none, or a key that TorchServe does not know."""

    exit_code = 2


class PortTaken(RunError):
    """A port of the configuration is in use."""


class AlreadyRunning(RunError):
    """The run folder belongs to a running server."""


class NotRunning(RunError):
    """No server runs in this run folder."""

    exit_code = 3


class FrontendFailed(RunError):
    """The Java process ended."""


class ModelFailed(RunError):
    """A model whose worker dies at load, whose archive is refused, or whose first answer is an error."""


class Interrupted(RunError):
    """SIGINT or SIGTERM came during the start."""

    exit_code = 130
