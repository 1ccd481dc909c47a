"""The commands `bench` and `chaos`, whose code is in the repository but not in the wheel."""

import sys
from importlib import import_module
from typing import Any

from torchserve_models.cli.typer_helpers import create_app
from torchserve_models.exit_codes import ExitCode
from torchserve_models.paths import ROOT

MODULES = {"bench": "benchmarks.cli", "chaos": "tests.chaos.cli"}

app = create_app()


def find_repository_app(command: str) -> Any:
    """Return the typer app of a command, or None if this package is not part of a repository checkout."""
    module = MODULES[command]
    if not ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file():
        return None
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return import_module(module).app


_ANY_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("bench", context_settings=_ANY_OPTIONS)
def bench_command() -> int:
    """Measure this server and its alternatives on this machine. Requires a repository checkout."""
    return _print_checkout_required("bench")


@app.command("chaos", context_settings=_ANY_OPTIONS)
def chaos_command() -> int:
    """Inject faults and hostile traffic into a server, and check every answer. Requires a repository checkout."""
    return _print_checkout_required("chaos")


def _print_checkout_required(command: str) -> int:
    print(
        f"error: {command} is not part of the installed package; run scripts/{command} in a checkout of the "
        "repository",
        file=sys.stderr,
    )
    return ExitCode.FAILURE
