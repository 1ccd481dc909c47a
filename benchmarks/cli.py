"""The command scripts/bench."""

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.console import at_its_limit, now, say, tell
from benchmarks.errors import BenchError, Unavailable
from benchmarks.options import ROOT, parser, refuse
from benchmarks.signals import interrupt_on_all

PAGE = ROOT / "docs" / "benchmarks.md"
AGREEMENT_IMAGES, AGREEMENT_IMAGES_QUICK = 1000, 100


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when it was measured, whatever came out; 1 when it could not be; 130 interrupted."""
    options = parser().parse_args(arguments)
    interrupt_on_all()
    try:
        refuse(options)
        if options.url:
            return _running_server(options)
        with _alone(options.work):
            if options.texts:
                return _texts(options)
            return _side_by_side(options)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Raises BenchError while another run has the folder."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another run uses {work}; wait for it, or give --work another folder") from None
        yield


def _side_by_side(options: argparse.Namespace) -> int:
    from benchmarks import agreement, images, machine, measure, report
    from benchmarks.systems.catalog import INT8, REST, chosen
    from torchserve_models.loadgen import LoadGenerator

    systems = chosen(options.systems)
    if options.write_docs:
        report.around_markers(PAGE)
    place = _place(options)
    schedule = _schedule(options)
    facts = machine.facts()
    say(f"on {machine.sentence(facts)}; {images.sizes(place.images)}")
    with LoadGenerator(options.processes) as generator:
        results = measure.measured(systems, place, schedule, generator)
    sentence = (
        f"ResNet-50 at full size, {images.sizes(place.images)}, {machine.sentence(facts)}; medians of "
        f"{schedule.rounds} interleaved rounds, {now():%Y-%m-%d}, `{facts['command']}`.{at_its_limit(generator)}"
    )
    extra: dict[str, Any] = {
        "date": now().isoformat(timespec="seconds"),
        "machine": facts,
        "images": images.sizes(place.images),
        "seconds": schedule.seconds,
        "rounds": schedule.rounds,
    }
    _write(options.out, results, sentence, extra, [])  # whatever happens to the rest
    wanted = [(name, int8) for name, int8 in ((REST, False), (INT8, True)) if name in results.rows]
    count = AGREEMENT_IMAGES_QUICK if options.quick else AGREEMENT_IMAGES
    if wanted:
        say(f"labels of {count} images, in process, against fp32 eager")
        agreements = agreement.compare(place, count, wanted)
    else:
        agreements = []
    tell(options.out, _write(options.out, results, sentence, extra, agreements), sentence)
    if options.write_docs:
        report.into_page(PAGE, (options.out / "table.md").read_text())
    try:
        report.draw(options.out, place.root / "venvs")
    except Unavailable as error:
        say(f"no images: {error}")
    return 0


def _write(
    folder: Path, results: Any, sentence: str, extra: dict[str, Any], agreements: Sequence[Any]
) -> dict[str, str]:
    """The files of a run side by side; returns the report's sections by their headings."""
    from benchmarks import bars, report

    judged = bars.bars(results, agreements, extra["machine"]["gpu"] is not None)
    blocks = {
        "Side by side": report.table(results),
        "Open loop, one pass each": report.open_table(results),
        "Agreement": report.agreement_table(agreements) if agreements else "",
        "What is promised": report.bars_table(judged),
    }
    lists = {"agreement": agreements, "bars": judged}
    extra = extra | {key: [each.as_json() for each in found] for key, found in lists.items()}
    report.write(folder, results, sentence, extra, blocks)
    return blocks


def _texts(options: argparse.Namespace) -> int:
    from benchmarks.texts import command

    return command.run(options, PAGE)


def _running_server(options: argparse.Namespace) -> int:
    from benchmarks import images, machine, measure, report, work
    from benchmarks.systems.running import RunningServer
    from torchserve_models.loadgen import LoadGenerator

    sent = tuple(images.sent(options.images))
    target = work.served(options.url, options.model, sent)
    place = _place(options, model=False)
    schedule = replace(_schedule(options), warm_up=1.0)
    with LoadGenerator(options.processes) as generator:
        system = RunningServer(options.url, options.model, target)
        results = measure.measured([system], place, schedule, generator)
    blocks = {"Closed loop": report.table(results), "Open loop, one pass each": report.open_table(results)}
    sentence = (
        f"{options.model} at {options.url}, load from {machine.sentence(machine.facts())}."
        f"{at_its_limit(generator)}"
    )
    extra = {"machine": machine.facts(), "url": options.url, "model": options.model}
    report.write(options.out, results, sentence, extra, blocks)
    tell(options.out, blocks, sentence)
    return 0


def _place(options: argparse.Namespace, model: bool = True) -> Any:
    from benchmarks import images, weights
    from benchmarks.systems.base import Workplace

    options.work.mkdir(parents=True, exist_ok=True)
    folder = weights.full_size(options.work / "model") if model else options.work
    return Workplace(options.work, folder, tuple(images.sent(options.images)), say)


def _schedule(options: argparse.Namespace) -> Any:
    from benchmarks.measure import QUICK, Schedule

    schedule = QUICK if options.quick else Schedule()
    given = {key: getattr(options, key) for key in ("seconds", "rounds", "concurrency")}
    return replace(schedule, **{key: value for key, value in given.items() if value})
