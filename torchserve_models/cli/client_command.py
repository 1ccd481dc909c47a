"""Run a client operation for a command: print its errors and return the exit code."""

import asyncio
import io
import os
import sys
from collections.abc import Awaitable, Callable

from torchserve_models.cli.options import Connection
from torchserve_models.client.error_messages import START_HINT, explain, is_server_missing
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.settings import Settings
from torchserve_models.exit_codes import ExitCode


def run_operation(connection: Connection, operation: Callable[[Settings], Awaitable[int]]) -> int:
    """Run `operation` with the settings of `connection` and return its exit code, or that of its error."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may have bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        settings = connection.settings()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    try:
        return asyncio.run(_await(operation(settings)))
    except TorchServeError as error:
        print(explain(error), file=sys.stderr)
        if is_server_missing(error):
            print(START_HINT, file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SUCCESS


async def _await(operation: Awaitable[int]) -> int:
    return await operation
