"""What scripts/bench can be asked, and which wishes exclude each other."""

import argparse
from pathlib import Path

from benchmarks.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"
DEFAULT_OUT = ROOT / "bench-results"


def refuse(options: argparse.Namespace) -> None:
    """Raises BenchError for options that cannot go together."""
    if options.url and not options.model:
        raise BenchError("--url needs --model NAME")
    for name in ("url", "images"):
        if options.texts and getattr(options, name):
            raise BenchError(f"--texts measures summaries side by side; it cannot go with --{name}")
    if options.texts and options.processes > 1:
        raise BenchError("--texts has one load generator; leave --processes out")
    for name in ("models", "workloads"):
        if getattr(options, name) and not options.texts:
            raise BenchError(f"--{name} is for --texts")
    if not options.write_docs:
        return
    for name in ("quick", "systems", "url", "models", "workloads"):
        if getattr(options, name):
            raise BenchError(f"--write-docs is for a whole run; it cannot go with --{name}")


def parser() -> argparse.ArgumentParser:
    """What `scripts/bench --help` shows."""
    from benchmarks.systems.catalog import catalog
    from benchmarks.texts.catalog import names

    known = ", ".join(system.name for system in catalog())
    known += f"; with --texts: {', '.join(names())}"
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        allow_abbrev=False,
        description="Measures ResNet-50 side by side on this machine, in one run: this repository over REST and "
        "gRPC, what the machine could do without a server, and Flask, FastAPI, MLServer, LitServe and "
        "TorchServe's own handler as their manuals set them up. About 25 minutes, and a few more the first time. "
        "With --texts, summaries by T5-small and BART-large at full size.",
        epilog="docs/benchmarks.md says what is measured and how to read it.",
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: one short round, fewer rates")
    what = parser.add_argument_group("what to measure")
    what.add_argument("--systems", type=_names, default=(), metavar="A,B", help=f"only these: {known}")
    what.add_argument(
        "--texts", action="store_true", help="summaries instead of images; --out gets a folder texts/"
    )
    what.add_argument(
        "--models", type=_names, default=(), metavar="A,B", help="of --texts: t5-small,bart-large"
    )
    what.add_argument(
        "--workloads",
        type=_names,
        default=(),
        metavar="a,b,c",
        help="of --texts: a (short), b (articles), c (beams)",
    )
    what.add_argument("--images", type=Path, metavar="FOLDER", help="your own JPEGs instead of drawn ones")
    what.add_argument(
        "--url",
        metavar="URL",
        help="measure a server that runs, such as http://127.0.0.1:8080 or one behind a path; in the end it is "
        "offered 150 %% of what it can answer",
    )
    what.add_argument("--model", metavar="NAME", help="which of its models, for images or texts")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--concurrency", type=_numbers, metavar="1,8,32", help="requests at once in the closed loops"
    )
    how.add_argument(
        "--seconds",
        type=_positive,
        metavar="N",
        help="of each measurement (default 4; --quick 3; with --texts 6 and 2)",
    )
    how.add_argument(
        "--rounds", type=_count, metavar="N", help="turns of all systems (default 3; --quick and --texts 1)"
    )
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
        "--write-docs", action="store_true", help="put the table between the markers of docs/benchmarks.md"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({_count(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers such as 1,8,32") from None


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
