"""Parse the options of a dataclass of options, without a command that uses them."""

from typing import Any

from typer.main import get_command

from torchserve_models.cli.typer_helpers import create_app, expand_options, run_command


def parse_options(group: type, *arguments: str) -> Any:
    """Return an instance of `group` for the arguments, or None for a wrong command line."""
    app, instances = create_app(), []

    @app.command()
    @expand_options
    def command(*, options: group) -> None:  # type: ignore[valid-type]
        instances.append(options)

    run_command(get_command(app), arguments, "test")
    return instances[0] if instances else None
