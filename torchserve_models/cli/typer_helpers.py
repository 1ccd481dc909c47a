"""Typer apps with plain text output, and options that several commands share."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer

from torchserve_models.exit_codes import ExitCode


def create_app(**settings: Any) -> typer.Typer:
    """Return an app whose help and errors are plain text: no boxes, no lines cut to the width of a terminal."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, **settings)


def examples(*commands: str) -> str:
    """Return the Examples section of a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  torchserve-models {command}" for command in commands)


def expand_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Replace each parameter whose type is a dataclass by parameters for the fields of that dataclass.

    A field is an option: its type is `Annotated[TYPE, typer.Option(...)]`. A ValueError that the dataclass raises
    becomes a usage error. The command's parameters must be keyword-only.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _field_parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def call(context: typer.Context, **arguments: Any) -> Any:
        for name, group in groups.items():
            values = {field.name: arguments.pop(field.name) for field in fields(group)}
            try:
                arguments[name] = group(**values)
            except ValueError as error:
                context.fail(str(error))
        return command(**arguments)

    del call.__wrapped__  # its annotations are not those of `call`
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _field_parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def run_command(command: Any, arguments: Sequence[str], program: str) -> int:
    """Run a typer command and return its exit code; a usage error is printed to stderr."""
    try:
        exit_code = command.main(list(arguments), prog_name=program, standalone_mode=False)
    except typer.TyperException as error:
        _print_usage_error(error)
        return int(error.exit_code)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    return int(exit_code or ExitCode.SUCCESS)


def _print_usage_error(error: typer.TyperException) -> None:
    context = getattr(error, "ctx", None)
    if context is not None:
        print(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.", file=sys.stderr)
    message = error.format_message().replace("Value error, ", "")  # a prefix of pydantic's
    if message.startswith("No such option"):
        message += " (an argument that begins with - goes after --)"
    print(f"error: {message}", file=sys.stderr)
