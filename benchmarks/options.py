"""The options of `bench`."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from benchmarks.errors import BenchmarkError
from benchmarks.instruction_sets import INSTRUCTION_SETS
from benchmarks.session import Schedule
from benchmarks.systems.catalog import check_names, list_image_names, list_text_names
from torchserve_models.cli.options import parse_positive, parse_timeout

ROOT = Path(__file__).resolve().parent.parent


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_numbers(text: str) -> tuple[int, ...]:
    """Return numbers in ascending order. Raises ValueError."""
    return tuple(sorted({parse_positive(part) for part in text.split(",")}))


_SYSTEMS = f"{', '.join(list_image_names())}; with --texts: {', '.join(list_text_names())}"


_names = partial(Option, parser=parse_names, show_default=False)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `bench`. `systems`, `models` and `workloads` are tuples of names; an empty tuple selects all."""

    quick: Annotated[bool, Option("--quick", help="Run one short round with fewer rates.")] = False
    systems: Annotated[Any, _names(metavar="A,B", help=f"Systems to measure: {_SYSTEMS}.")] = ""
    texts: Annotated[bool, Option("--texts", help="Measure summaries; results go to OUT/texts.")] = False
    models: Annotated[Any, _names(metavar="A,B", help="With --texts: t5-small,bart-large.")] = ""
    workloads: Annotated[
        Any, _names(metavar="a,b,c", help="With --texts: a (short), b (articles), c (beams), d (copied).")
    ] = ""
    images: Annotated[Path | None, Option(metavar="FOLDER", help="Use these JPEGs.")] = None
    url: Annotated[str, Option(metavar="URL", help="Measure a running server.")] = ""
    model: Annotated[str, Option(metavar="NAME", help="Model at --url.")] = ""
    concurrency: Annotated[
        Any, Option(parser=parse_numbers, metavar="1,8,32", help="Numbers of clients.")
    ] = None
    seconds: Annotated[
        float | None, Option(parser=parse_timeout, metavar="S", help="Seconds per measurement.")
    ] = None
    rounds: Annotated[int | None, Option(parser=parse_positive, metavar="N", help="Number of rounds.")] = None
    isa: Annotated[str, Option(metavar="|".join(INSTRUCTION_SETS), help="Measure as on such a CPU.")] = ""
    processes: Annotated[
        int, Option(parser=parse_positive, metavar="N", help="Load generator processes, for images.")
    ] = 1
    out: Annotated[Path, Option(metavar="FOLDER", help="Results.")] = ROOT / "bench-results"
    work: Annotated[Path, Option(metavar="FOLDER", help="Cached weights and environments.")] = ROOT / ".bench"
    write_docs: Annotated[bool, Option("--write-docs", help="Update docs/benchmarks.md.")] = False

    def adapt(self, quick: Schedule, default: Schedule) -> Schedule:
        """Return one of two schedules, updated with the values of the command line."""
        schedule = quick if self.quick else default
        changes = {key: getattr(self, key) for key in ("seconds", "rounds", "concurrency")}
        changes["open_seconds"] = schedule.open_seconds * (self.seconds or 0) / schedule.seconds
        return replace(schedule, **{key: value for key, value in changes.items() if value})

    def check(self) -> None:
        """Raise BenchmarkError for options that cannot be combined."""
        required = {"url": "model", "models": "texts", "workloads": "texts"}
        partial_run = ("quick", "systems", "url", "models", "workloads")
        conflicts = {"texts": ("url", "images"), "isa": ("url",), "write_docs": partial_run}
        for option, name in required.items():
            if getattr(self, option) and not getattr(self, name):
                raise BenchmarkError(f"--{option} requires --{name}")
        for option, names in conflicts.items():
            for name in names:
                if getattr(self, option) and getattr(self, name):
                    raise BenchmarkError(f"--{option.replace('_', '-')} cannot be combined with --{name}")
        check_names("--isa", [self.isa] if self.isa else [], tuple(INSTRUCTION_SETS))
