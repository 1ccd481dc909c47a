"""Errors raised while serving. Each message says what to do.

RunError
 ├ ConfigError        config.properties is invalid
 ├ PortTaken          another program listens on a port of the server
 ├ AlreadyRunning     a server runs in this run folder
 ├ FrontendFailed     the Java front end did not start, or ended by itself
 ├ ModelFailed        a model cannot be loaded, or does not answer
 └ Interrupted        a stop was requested during startup
"""

from typing import ClassVar

from torchserve_models.exit_codes import ExitCode


class RunError(Exception):
    """Base class of errors that keep the server from running; `str()` is the user-facing message."""

    exit_code: ClassVar[int] = ExitCode.FAILURE


class ConfigError(RunError):
    """config.properties is missing, has an invalid line, or a key that TorchServe does not know."""

    exit_code = ExitCode.USAGE


class PortTaken(RunError):
    """A port of the configuration is in use."""


class AlreadyRunning(RunError):
    """The run folder belongs to a running server."""


class FrontendFailed(RunError):
    """The Java process did not start, or ended."""


class ModelFailed(RunError):
    """A model's worker died while loading, its archive was rejected, or its first answer was an error."""


class Interrupted(RunError):
    """SIGINT or SIGTERM arrived during startup."""

    exit_code = ExitCode.INTERRUPTED
