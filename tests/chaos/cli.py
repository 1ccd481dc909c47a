"""The command scripts/chaos."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.chaos.errors import ChaosError
from tests.chaos.plan import KINDS
from tests.chaos.traffic import CLIENTS, VIAS
from torchserve_models.client.cli_options import add_port_offset, add_run_dir

LONGEST_MINUTES = 120.0
MINUTES = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 passed, 1 failed or could not run, 2 wrong command line, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.scenario and options.port_offset is not None:
        parser.error("--port-offset is not for --scenario, which starts one server after the other")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _run_dir(options.run_dir) as folder:
            return _scenario(options, folder) if options.scenario else _chaos(options, folder)
    except ChaosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _chaos(options: argparse.Namespace, folder: Path) -> int:
    from tests.chaos import report
    from tests.chaos.run import Options, run
    from tests.chaos.stack import Stack

    with Stack(
        folder,
        _store(options, folder),
        with_front=options.via != "raw",
        port_offset=options.port_offset,
    ) as stack:
        chosen = Options(
            seed=options.seed,
            seconds=60 * (options.minutes or MINUTES),
            via=options.via,
            kinds=options.kinds,
            deadline=options.deadline,
            clients=options.clients,
        )
        result = run(stack, chosen, _say)
    summary = report.summarize(result)
    _write(options.json, report.as_json(result, summary))
    print(report.table(result, summary))
    return 1 if summary.problems else 0


def _scenario(options: argparse.Namespace, folder: Path) -> int:
    from tests.chaos.scenarios import SCENARIOS, table

    results = []
    for name in options.scenario:
        result = SCENARIOS[name](
            folder / name,
            _store(options, folder),
            _say,
            None if options.minutes is None else 60 * options.minutes,
        )
        print(table(result), flush=True)
        results.append(result)
    _write(options.json, [result.as_json() for result in results])
    return 0 if all(result.passed for result in results) else 1


def _store(options: argparse.Namespace, folder: Path) -> Path:
    return options.store or folder / "store"


@contextmanager
def _run_dir(named: Path | None) -> Iterator[Path]:
    """A temporary folder, removed after the run, where none is named."""
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _write(path: Path | None, value: object) -> None:
    if path is not None:
        path.write_text(json.dumps(value, indent=2, default=str) + "\n", "utf-8")


def _say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes (0-{LONGEST_MINUTES:g})")
    return value


def _kinds(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    from tests.chaos.scenarios import SCENARIOS

    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Starts a server of its own with starter weights, sends good, bad and hostile requests while it "
        "kills, stops and changes parts of it, and checks every answer and readiness. Exit code 0: passed.",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the schedule and the requests; 1"
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help=f"{MINUTES:g}; of the scenarios long-batches and impatient 1",
    )
    parser.add_argument(
        "--via",
        choices=VIAS,
        default="nginx",
        help="raw: straight to TorchServe; nginx; client: Python, through nginx",
    )
    parser.add_argument(
        "--kinds", type=_kinds, default=KINDS, metavar="KIND,...", help=f"default: {','.join(KINDS)}"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=30.0,
        metavar="S",
        help="a request without an answer then is lost; 30",
    )
    parser.add_argument("--clients", type=int, default=CLIENTS, metavar="N", help=f"at once; {CLIENTS}")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=sorted(SCENARIOS),
        help="measure this load instead; may be repeated",
    )
    add_run_dir(parser, None, "keep logs there; a temporary folder")
    add_port_offset(parser, None, "of its server, added to every default port; free ports")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="archives; in the run folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser
