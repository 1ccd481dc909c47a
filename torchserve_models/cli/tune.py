"""The command `tune`, which finds the fastest batch settings."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from torchserve_models.cli.options import MAX_DURATION_S, JsonOutput, parse_duration, parse_positive
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.exit_codes import ExitCode
from torchserve_models.signals import handle_termination

app = create_app()


@dataclass(frozen=True)
class ClientCounts:
    """Unique numbers of clients, in ascending order."""

    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.numbers))


def parse_client_counts(value: Any) -> ClientCounts:
    """Parse a list of positive numbers such as 1,8,32. Raises ValueError for other text."""
    try:
        return ClientCounts(tuple(sorted({parse_positive(part) for part in str(value).split(",")})))
    except ValueError:
        raise ValueError(f"{str(value)!r} is not a list of positive numbers such as 1,8,32") from None


def parse_length(value: Any) -> float:
    """Parse the length of a measurement in seconds. Raises ValueError if it is not above 0 and at most 3600."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError(
            f"{str(value)!r} is not a number of seconds (more than 0, at most {MAX_DURATION_S:g})"
        )
    return seconds


@app.command(
    "tune",
    epilog=examples(
        "tune resnet-50 --inputs my-photos/", "tune t5-small --concurrency 1,16 --no-write --json"
    ),
)
@expand_options
def tune_command(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of models/.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SOURCE", help="Weights as of `pack --from`; by default those of `pack`."
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default="sample inputs",
            help="Folder of JPEG images or, for a summarizer, of text files.",
        ),
    ] = None,
    concurrency: Annotated[
        ClientCounts,
        typer.Option(parser=parse_client_counts, metavar="1,8,32", help="Numbers of clients."),
    ] = ClientCounts((1, 8, 32)),  # a frozen dataclass
    seconds: Annotated[
        float, typer.Option(parser=parse_length, metavar="S", help="Seconds of each measurement.")
    ] = 4.0,
    processes: Annotated[
        int,
        typer.Option(
            parser=parse_positive,
            metavar="N",
            help="Load generator processes; several for over 2,000 requests/s.",
        ),
    ] = 1,
    no_write: Annotated[
        bool, typer.Option("--no-write", help="Leave the configuration file unchanged.")
    ] = False,
    as_json: JsonOutput = False,
) -> int:
    """Find the fastest batch size and number of workers of a model on this machine.

    The result is written to models/NAME/model-config.yaml.
    """
    from torchserve_models.tuning import TuningError
    from torchserve_models.tuning.sweep import tune

    handle_termination()
    try:
        setting = tune(name, source, inputs, concurrency.numbers, seconds, processes, not no_write)
    except TuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        print("interrupted; model-config.yaml was not changed", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if as_json:
        print(json.dumps({"name": name, **asdict(setting)}))
    return ExitCode.SUCCESS
