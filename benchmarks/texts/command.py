"""scripts/bench --texts: both models one after the other, each with all systems side by side."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine, measure, report
from benchmarks.console import at_its_limit, now, say, tell
from benchmarks.errors import Unavailable
from benchmarks.measure import Schedule
from benchmarks.results import Results
from benchmarks.systems.base import Workplace
from benchmarks.texts import report as tables
from benchmarks.texts.bars import bars
from benchmarks.texts.catalog import check, chosen, names
from benchmarks.texts.models import MODELS, full_size
from benchmarks.texts.workloads import WORKLOADS
from torchserve_models.loadgen import LoadGenerator

FOLDER = "texts"
"""Of the results: those of images stay."""
WHOLE = Schedule(seconds=6.0, rounds=1, open_seconds=0.0)
QUICK = replace(WHOLE, concurrency=(1, 8), seconds=2.0)


def run(options: argparse.Namespace, page: Path) -> int:
    """The exit code. Raises BenchError for a name that is not known."""
    models, workloads = options.models or tuple(MODELS), options.workloads or tuple(WORKLOADS)
    check("--models", models, tuple(MODELS))
    check("--workloads", workloads, tuple(WORKLOADS))
    check("--systems", options.systems, names())
    if options.write_docs:
        report.around_markers(page, report.TEXTS_SECTION)
    schedule, folder = _schedule(options), options.out / FOLDER
    facts = machine.facts()
    say(f"on {machine.sentence(facts)}")
    found: dict[str, Results] = {}
    with LoadGenerator() as generator:
        for name in models:
            found[name] = _measured(name, options, workloads, schedule, generator)
            sentence = _sentence(facts, workloads, schedule) + at_its_limit(generator)
            extra = {
                "date": now().isoformat(timespec="seconds"),
                "machine": facts,
                "seconds": schedule.seconds,
                "rounds": schedule.rounds,
            }
            blocks = write(folder, found, workloads, sentence, extra)  # whatever happens to the next
    tell(folder, blocks, sentence)
    if options.write_docs:
        report.into_page(page, (folder / "table.md").read_text(), report.TEXTS_SECTION)
    try:
        report.draw(folder, options.work / "venvs")
    except Unavailable as error:
        say(f"no images: {error}")
    return 0


def write(
    folder: Path, found: dict[str, Results], workloads: Sequence[str], sentence: str, extra: dict[str, Any]
) -> dict[str, str]:
    """The files of a run; returns the report's sections by their headings."""
    judged = bars(found)
    blocks = {**tables.blocks(found, workloads), "What is promised": report.bars_table(judged)}
    short = "\n\n".join(
        f"**{MODELS[name].title}**\n\n{tables.short(each, workloads)}" for name, each in found.items()
    )
    texts = {name: {"title": WORKLOADS[name].title} for name in workloads}
    everything = {
        **extra,
        "workloads": texts,
        "bars": [bar.as_json() for bar in judged],
        "models": {name: _as_json(results, workloads) for name, results in found.items()},
    }
    report.write_files(folder, everything, short, sentence, blocks)
    return blocks


def _as_json(results: Results, workloads: Sequence[str]) -> dict[str, Any]:
    systems = [
        {**row.as_json(), "system": name, "workload": work}
        for name, rows in tables.by_system(results, workloads).items()
        for work, row in rows.items()
    ]
    return {"concurrency": results.concurrency, "systems": systems}


def _measured(
    name: str,
    options: argparse.Namespace,
    workloads: Sequence[str],
    schedule: Schedule,
    generator: LoadGenerator,
) -> Results:
    model = MODELS[name]
    systems = chosen(model, options.systems, workloads, options.quick)
    options.work.mkdir(parents=True, exist_ok=True)
    place = Workplace(options.work, full_size(model, options.work / "texts" / name), (), say)
    return measure.measured(systems, place, schedule, generator)


def _schedule(options: argparse.Namespace) -> Schedule:
    given = {key: getattr(options, key) for key in ("seconds", "rounds", "concurrency")}
    return replace(QUICK if options.quick else WHOLE, **{key: each for key, each in given.items() if each})


def _sentence(facts: dict[str, Any], workloads: Sequence[str], schedule: Schedule) -> str:
    rounds = f"medians of {schedule.rounds} interleaved rounds" if schedule.rounds > 1 else "one round"
    return (
        f"Full size, random weights; {tables.legend(workloads)}. {machine.sentence(facts)}; {rounds}, "
        f"{now():%Y-%m-%d}, `{facts['command']}`."
    )
