"""The command scripts/bench."""

import argparse
import datetime
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.errors import BenchError, Unavailable

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"
DEFAULT_OUT = ROOT / "bench-results"
AGREEMENT_PICTURES, AGREEMENT_PICTURES_QUICK = 1000, 100
_TUNE_SECONDS = 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when it was measured, whatever came out; 1 when it could not be; 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.url:
            return _running_server(options)
        if options.tune:
            return _tune(options)
        return _side_by_side(options)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _side_by_side(options: argparse.Namespace) -> int:
    from benchmarks import agreement, bars, machine, measure, pictures, report
    from benchmarks.generator import Generator
    from benchmarks.systems.catalogue import INT8, REST, chosen

    systems = chosen(options.systems)
    place = _place(options)
    schedule = _schedule(options)
    facts = machine.facts()
    say(f"on {machine.sentence(facts)}; {pictures.sizes(place.pictures)}")
    with Generator(options.processes) as generator:
        results = measure.measured(systems, place, schedule, generator)
    wanted = [(name, int8) for name, int8 in ((REST, False), (INT8, True)) if name in results.rows]
    count = AGREEMENT_PICTURES_QUICK if options.quick else AGREEMENT_PICTURES
    say(f"labels of {count} pictures against fp32 eager")
    agreements = agreement.compare(place, count, wanted) if wanted else []
    judged = bars.bars(results, agreements, facts["gpu"] is not None)
    blocks = {
        "Side by side": report.table(results),
        "Open loop": report.open_table(results),
        "Agreement": report.agreement_table(agreements),
        "What is promised": report.bars_table(judged),
    }
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    sentence = (
        f"ResNet-50 at full size, {pictures.sizes(place.pictures)}, {machine.sentence(facts)}; medians of "
        f"{schedule.rounds} interleaved rounds, {today}, `{facts['command']}`."
    )
    extra: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": facts,
        "pictures": pictures.sizes(place.pictures),
        "seconds": schedule.seconds,
        "rounds": schedule.rounds,
        "agreement": [each.as_json() for each in agreements],
        "bars": [bar.as_json() for bar in judged],
    }
    _tell(options.out, results, sentence, extra, blocks)
    if options.write_readme:
        report.into_readme(ROOT / "README.md", (options.out / "table.md").read_text())
    try:
        report.draw(options.out, place.root / "venvs")
    except Unavailable as error:
        say(f"no pictures: {error}")
    return 0


def _running_server(options: argparse.Namespace) -> int:
    from benchmarks import machine, measure, pictures, report, work
    from benchmarks.generator import Generator
    from benchmarks.systems.running import RunningServer

    if not options.model:
        raise BenchError("--url needs --model NAME")
    sent = tuple(pictures.sent(options.pictures))
    target = work.served(options.url, options.model, sent)
    place = _place(options, model=False)
    schedule = replace(_schedule(options), warm_up=1.0)
    with Generator(options.processes) as generator:
        system = RunningServer(options.url, options.model, target)
        results = measure.measured([system], place, schedule, generator)
    blocks = {"Closed loop": report.table(results), "Open loop": report.open_table(results)}
    sentence = f"{options.model} at {options.url}, load from {machine.sentence(machine.facts())}."
    extra = {"machine": machine.facts(), "url": options.url, "model": options.model}
    _tell(options.out, results, sentence, extra, blocks)
    return 0


def _tell(folder: Path, results: Any, sentence: str, extra: dict[str, Any], blocks: dict[str, str]) -> None:
    from benchmarks import report

    report.write(folder, results, sentence, extra, blocks)
    for heading, text in blocks.items():
        print(f"\n{heading}\n\n{text}")
    print(f"\n{sentence}\nWritten to {folder}")


def _tune(options: argparse.Namespace) -> int:
    from benchmarks.generator import Generator
    from benchmarks.tune import tune

    with Generator(options.processes) as generator:
        seconds = options.seconds or _TUNE_SECONDS
        tune(options.tune, _place(options), generator, options.concurrency or (1, 8, 32), seconds)
    return 0


def _place(options: argparse.Namespace, model: bool = True) -> Any:
    from benchmarks import pictures, weights
    from benchmarks.systems.base import Workplace

    options.work.mkdir(parents=True, exist_ok=True)
    folder = weights.full_size(options.work / "model") if model else options.work
    return Workplace(options.work, folder, tuple(pictures.sent(options.pictures)), say)


def _schedule(options: argparse.Namespace) -> Any:
    from benchmarks.measure import QUICK, Schedule

    schedule = QUICK if options.quick else Schedule()
    given = {key: getattr(options, key) for key in ("seconds", "rounds", "concurrency")}
    return replace(schedule, **{key: value for key, value in given.items() if value})


def say(text: str) -> None:
    """What is going on, for a person, on stderr: stdout has the tables."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures ResNet-50 side by side on this machine, in one run: this repository over REST and "
        "gRPC, what the machine could do without a server, and Flask, FastAPI, MLServer, LitServe and "
        "TorchServe's own handler as their manuals set them up. About 25 minutes, and a few more the first time.",
        epilog="docs/benchmarks.md says what is measured and how to read it.",
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: one short round, fewer rates")
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--systems", type=_names, default=(), metavar="A,B", help="only these; a wrong name lists them"
    )
    what.add_argument("--pictures", type=Path, metavar="FOLDER", help="your own JPEGs instead of drawn ones")
    what.add_argument(
        "--url", metavar="URL", help="measure a server that runs, such as http://127.0.0.1:8080"
    )
    what.add_argument("--model", metavar="NAME", help="which of its models, for images or texts")
    what.add_argument(
        "--tune",
        metavar="NAME",
        help="find the best batch size and workers for a model of models/, and write them into its configuration",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--concurrency", type=_numbers, metavar="1,8,32", help="requests at once in the closed loops"
    )
    how.add_argument(
        "--seconds", type=_positive, metavar="N", help="of each measurement (default 6; --quick 3)"
    )
    how.add_argument("--rounds", type=_count, metavar="N", help="turns of all systems (default 3; --quick 1)")
    how.add_argument(
        "--processes", type=_count, default=1, metavar="N", help="of the load generator (default 1)"
    )
    where = parser.add_argument_group("where it goes")
    where.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="results (bench-results/)"
    )
    where.add_argument(
        "--work",
        type=Path,
        default=WORK,
        metavar="DIR",
        help="weights, archives and the peers' packages (.bench/)",
    )
    where.add_argument(
        "--write-readme", action="store_true", help="put the table between the README's markers"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_count(part) for part in text.split(",")}))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text}: more than 0")
    return number
