"""The command `torchserve-models`: passes each subcommand to the program of its package."""

import sys
from collections.abc import Sequence
from importlib import import_module

import torchserve_models

# The module whose main() runs a subcommand, and whether main() expects the subcommand's name as its first argument.
_COMMANDS = {
    "serve": ("serving.cli", True),
    "stop": ("serving.cli", True),
    "status": ("serving.cli", True),
    "pack": ("packing.cli", False),
    "predict": ("client.cli", True),
    "manage": ("client.cli", True),
    "gateway": ("gateway.front", False),
    "tune": ("tuning.cli", False),
    "demo": ("demo.cli", False),
}
_USAGE = f"usage: torchserve-models [--version] [--help] {{{','.join(_COMMANDS)}}} ..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 for an unknown one."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(f"{_USAGE}\n\nRun torchserve-models COMMAND --help for the options of a command.")
        return 0
    if command == "--version":
        print(f"torchserve-models {torchserve_models.__version__}")
        return 0
    if command not in _COMMANDS:
        print(f"{_USAGE}\ntorchserve-models: unknown command {command!r}", file=sys.stderr)
        return 2
    module, takes_name = _COMMANDS[command]
    try:
        program = import_module(f"torchserve_models.{module}")
    except ModuleNotFoundError as error:
        extra = "demo" if command == "demo" else "serve"
        print(
            f"torchserve-models {command} needs the module {error.name!r}, which is not installed: "
            f"pip install 'torchserve-models[{extra}]'",
            file=sys.stderr,
        )
        return 1
    return int(program.main([command, *rest] if takes_name else rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
