"""The command `chaos`."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option
from typer.main import get_command

from tests.chaos.errors import ChaosError
from tests.chaos.plan import KINDS
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.traffic import CLIENTS, Via
from torchserve_models.cli.options import parse_positive, parse_timeout
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options, run_command
from torchserve_models.exit_codes import ExitCode
from torchserve_models.signals import handle_termination

MAX_MINUTES = 120.0
DEFAULT_MINUTES = 3.0

_ALL_KINDS = ",".join(KINDS)


def parse_minutes(value: Any) -> float:
    """Return a number of minutes. Raises ValueError."""
    minutes = float(value)
    if not 0 < minutes <= MAX_MINUTES:
        raise ValueError(f"{value} is not a number of minutes (above 0, at most {MAX_MINUTES:g})")
    return minutes


def parse_kinds(value: Any) -> tuple[str, ...]:
    """Return the kinds of faults that a comma-separated list names. Raises ValueError."""
    kinds = tuple(part.strip() for part in str(value).split(",") if part.strip())
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    return kinds


def parse_scenario(value: Any) -> str:
    """Return the name of a scenario. Raises ValueError."""
    name = str(value)
    if name not in SCENARIOS:
        raise ValueError(f"unknown scenario {name!r}; known: {', '.join(sorted(SCENARIOS))}")
    return name


@dataclass(frozen=True, kw_only=True)
class ChaosOptions:
    """The options of `chaos`; `kinds` is a tuple of names. Raises ValueError for options that exclude each other."""

    seed: Annotated[int, Option(metavar="N", help="Seed of the schedule and the requests.")] = 1
    minutes: Annotated[
        float | None,
        Option(
            parser=parse_minutes,
            metavar="N",
            help=f"Duration; default: {DEFAULT_MINUTES:g}, for the scenarios long-batches and impatient: 1.",
        ),
    ] = None
    via: Annotated[
        Via, Option(help="raw: TorchServe itself; nginx; client: the Python client, through nginx.")
    ] = "nginx"
    kinds: Annotated[Any, Option(parser=parse_kinds, metavar="KIND,...", help="Kinds of faults.")] = (
        _ALL_KINDS
    )
    deadline: Annotated[
        float,
        Option(parser=parse_timeout, metavar="S", help="Seconds after which an unanswered request is lost."),
    ] = 30.0
    clients: Annotated[
        int, Option(parser=parse_positive, metavar="N", help="Number of concurrent clients.")
    ] = CLIENTS
    scenario: Annotated[
        list[str] | None,
        Option(
            parser=parse_scenario,
            metavar="NAME",
            help=f"Run this scenario instead; can be repeated: {', '.join(sorted(SCENARIOS))}.",
        ),
    ] = None
    run_dir: Annotated[
        Path | None, Option(metavar="FOLDER", help="Folder for the logs; default: a temporary folder.")
    ] = None
    port_offset: Annotated[
        int | None,
        Option(metavar="N", help="Added to every default port of the server; default: free ports."),
    ] = None
    store: Annotated[Path | None, Option(metavar="FOLDER", help="Archives; default: in the run folder.")] = (
        None
    )
    json: Annotated[Path | None, Option("--json", metavar="FILE", help="Write the results to this file.")] = (
        None
    )

    def __post_init__(self) -> None:
        if self.scenario and self.port_offset is not None:
            raise ValueError(
                "--port-offset cannot be used with --scenario, which starts several servers; omit it"
            )


app = create_app()


@app.command(epilog=examples("chaos --minutes 10 --seed 3", "chaos --scenario impatient"))
@expand_options
def chaos(*, options: ChaosOptions) -> int:
    """Check every answer, and readiness, of a server under faults.

    Starts a server with starter weights, sends good, bad and hostile requests while it kills, stops and changes parts
    of the server, and checks every answer and readiness. Exit code 0: passed.
    """
    handle_termination()
    try:
        with _run_dir(options.run_dir) as folder:
            return _run_scenarios(options, folder) if options.scenario else _run_chaos(options, folder)
    except ChaosError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return run_command(get_command(app), arguments, "torchserve-models chaos")


def _run_chaos(options: ChaosOptions, folder: Path) -> int:
    from tests.chaos import report
    from tests.chaos.run import RunOptions, run
    from tests.chaos.stack import Stack

    with Stack(
        folder,
        options.store or folder / "store",
        with_front=options.via != "raw",
        port_offset=options.port_offset,
    ) as stack:
        run_options = RunOptions(
            seed=options.seed,
            seconds=60 * (options.minutes or DEFAULT_MINUTES),
            via=options.via,
            kinds=options.kinds,
            deadline=options.deadline,
            clients=options.clients,
        )
        result = run(stack, run_options, _info)
    summary = report.summarize(result)
    _write(options.json, report.as_json(result, summary))
    print(report.table(result, summary))
    return ExitCode.FAILURE if summary.problems else ExitCode.SUCCESS


def _run_scenarios(options: ChaosOptions, folder: Path) -> int:
    from tests.chaos.scenarios import table

    results = []
    seconds = None if options.minutes is None else 60 * options.minutes
    for name in options.scenario or ():
        result = SCENARIOS[name](folder / name, options.store or folder / "store", _info, seconds)
        print(table(result), flush=True)
        results.append(result)
    _write(options.json, [result.as_json() for result in results])
    return ExitCode.SUCCESS if all(result.is_ok for result in results) else ExitCode.FAILURE


@contextmanager
def _run_dir(folder: Path | None) -> Iterator[Path]:
    """Yield the folder, or a temporary one that is removed after the run."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _write(path: Path | None, value: object) -> None:
    if path is not None:
        path.write_text(json.dumps(value, indent=2, default=str) + "\n", "utf-8")


def _info(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)
