"""The command line: the choice of the command, and its exit code."""

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from torchserve_models.client import cli_manage, cli_predict
from torchserve_models.client.cli_options import HINT, connection, endpoints, explain, has_no_server
from torchserve_models.client.errors import TorchServeError
from torchserve_models.client.settings import Settings


class Command(Protocol):
    def parse(self, arguments: Sequence[str], connection: argparse.ArgumentParser) -> argparse.Namespace: ...

    async def run(self, options: argparse.Namespace, settings: Settings) -> int: ...


COMMANDS: dict[str, Command] = {"predict": cli_predict, "manage": cli_manage}


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 all well, 1 something failed, 2 not understood, 130 interrupted."""
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: python -m torchserve_models.client {'|'.join(COMMANDS)} ...", file=sys.stderr)
        return 2
    command = COMMANDS[arguments[0]]
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may have bytes that are not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = command.parse(arguments[1:], connection())
    except SystemExit as stop:  # argparse has said what is wrong, or shown its help
        return stop.code if isinstance(stop.code, int) else 0
    try:
        settings = Settings(endpoints(options), options.protocol, options.timeout)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(command.run(options, settings))
    except TorchServeError as error:
        print(explain(error), file=sys.stderr)
        if has_no_server(error):
            print(HINT, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has what it wanted, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
