"""The command `probe`: a health check for containers and service managers. scripts/probe does the same in bash."""

import socket
from http.client import HTTPConnection, HTTPException
from typing import Annotated

import typer

from torchserve_models.cli.options import parse_port
from torchserve_models.cli.typer_helpers import create_app, examples
from torchserve_models.exit_codes import ExitCode

TIMEOUT_S = 4.0

app = create_app()


@app.command("probe", epilog=examples("probe 8083 /readyz", "probe 8080"))
def probe_command(
    port: Annotated[int, typer.Argument(parser=parse_port, metavar="PORT", help="A port of this machine.")],
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The path of a URL; without it, only connect.")
    ] = None,
) -> int:
    """Check that a port of this machine answers.

    Exit code 0 if http://127.0.0.1:PORT/PATH answers 200 within four seconds, 1 if not.
    """
    try:
        if path is None:
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
            return ExitCode.SUCCESS
        connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
    except (OSError, HTTPException):
        return ExitCode.FAILURE
    return ExitCode.SUCCESS if status == 200 else ExitCode.FAILURE
