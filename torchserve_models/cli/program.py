"""The program `torchserve-models`: its commands, and the dispatch of a command line to one of them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import torchserve_models
from torchserve_models.cli.typer_helpers import run_command
from torchserve_models.exit_codes import ExitCode

PROGRAM = "torchserve-models"


EXTRA_MODULES = {"serve": "ts", "demo": "gradio"}
"""A module that only the packages of an extra contain."""


@dataclass(frozen=True)
class CommandSource:
    """The module and the one-line summary of a command, and the extra that installs its further dependencies."""

    module: str
    summary: str
    extra: str = "serve"


COMMANDS = {
    "serve": CommandSource(
        "serve", "Pack missing archives, start TorchServe, and wait until every model answers."
    ),
    "status": CommandSource("serve", "Show models, weights, workers, queue and readiness."),
    "stop": CommandSource("serve", "Stop the server and every worker."),
    "pack": CommandSource("pack", "Build model archives (model_store/NAME.mar) for TorchServe."),
    "predict": CommandSource("predict", "Send images and texts to a model; print labels and summaries."),
    "manage": CommandSource("manage", "Manage the models of a running server."),
    "gateway": CommandSource("gateway", "Run nginx and the gateway in front of a running server."),
    "keys": CommandSource("keys", "Create, list and revoke API keys of the gateway."),
    "gateway-app": CommandSource(
        "gateway_app", "Run the gateway application alone, behind a separate nginx."
    ),
    "gateway-config": CommandSource("gateway_config", "Write nginx.conf for an nginx in another container."),
    "demo": CommandSource("demo", "Show a running server in the browser.", extra="demo"),
    "tune": CommandSource(
        "tune", "Find the fastest batch size and number of workers of a model on this machine."
    ),
    "bench": CommandSource(
        "repository_commands",
        "Measure this server and its alternatives on this machine. Requires a repository checkout.",
    ),
    "chaos": CommandSource(
        "repository_commands",
        "Inject faults and hostile traffic into a server, and check every answer. Requires a repository checkout.",
    ),
    "probe": CommandSource("probe", "Check that a port of this machine answers."),
}


class LazyCommand(TyperCommand):
    """A command whose module is imported when it is used or its help is shown."""

    def __init__(self, name: str, source: CommandSource) -> None:
        super().__init__(name, help=source.summary, rich_markup_mode=None)
        self._source = source

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self._load().make_context(info_name, args, parent=parent, **extra)

    def _load(self) -> Any:
        module = import_module(f"torchserve_models.cli.{self._source.module}")
        find_app = getattr(module, "find_repository_app", None)
        repository_app = find_app(self.name) if find_app else None
        command = get_command(repository_app or module.app)
        return getattr(command, "commands", {}).get(self.name, command)


class Program(TyperGroup):
    """The group of all commands. A command is imported when it is used."""

    def __init__(self, **settings: Any) -> None:
        commands = [LazyCommand(name, source) for name, source in COMMANDS.items()]
        super().__init__(**settings | {"commands": commands})


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"{PROGRAM} {torchserve_models.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Program,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Run '{PROGRAM} COMMAND --help' for the options of a command and examples.",
)


@app.callback()
def root_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """ResNet-50, T5 and BART on TorchServe: pack model archives, serve them, and send requests."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (see `torchserve_models.exit_codes`).

    Args:
        arguments: The command line without the name of the program; by default that of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        return run_command(get_command(app), arguments, PROGRAM)
    except ModuleNotFoundError as error:
        name = arguments[0]
        extra = COMMANDS[name].extra if name in COMMANDS else "serve"
        if _is_installed(extra):
            raise
        print(
            f"{PROGRAM} {name} needs the module {error.name!r}, which is not installed: "
            f"pip install '{PROGRAM}[{extra}]'",
            file=sys.stderr,
        )
        return ExitCode.FAILURE


def _is_installed(extra: str) -> bool:
    """Return whether the packages of an extra are installed."""
    try:
        return find_spec(EXTRA_MODULES[extra]) is not None
    except ModuleNotFoundError:
        return False
