"""The three kinds of runs: images side by side, texts side by side, and a running server."""

import datetime
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError, SystemUnavailable
from benchmarks.machine import collect_facts, describe_machine
from benchmarks.options import BenchOptions
from benchmarks.report import files, tables
from benchmarks.report.results import Results, Row
from benchmarks.scenarios.base import ImageScenario, TextScenario
from benchmarks.scenarios.images import describe_sizes, load_images
from benchmarks.scenarios.resnet_weights import write_resnet
from benchmarks.scenarios.text_models import MODELS, write_text_model
from benchmarks.scenarios.workloads import WORKLOADS
from benchmarks.session import Schedule, Session
from benchmarks.systems.base import ImageLoad, Load, RunContext, System
from benchmarks.systems.catalog import REST, check_names, select_image_systems, select_text_systems
from torchserve_models.loadgen import LoadGenerator, Target, send_probe
from torchserve_models.tuning.workload import image_target, load_texts, text_target

DOCS_PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
print_progress = partial(print, file=sys.stderr, flush=True)
"""Print to stderr. Tables are printed to stdout."""
MAX_GENERATOR_CPU = 0.8
"""Share of a core above which the load generator may be the bottleneck."""


def measure_images(options: BenchOptions, schedule: Schedule) -> None:
    """Measure ResNet-50 with all systems and write the report. Raises BenchmarkError for an unknown name."""
    systems = select_image_systems(options.systems)
    section = _name_section(options, "bench")
    scenario = ImageScenario(write_resnet(options.work / "model"), load_images(options.images))
    machine, sizes = collect_facts(), describe_sizes(scenario.images)
    print_progress(f"on {describe_machine(machine)}; {sizes}")
    with LoadGenerator(options.processes) as generator:
        context = RunContext(options.work, scenario, generator, print_progress)
        results = Session(context, schedule).measure(systems)
    caption = f"ResNet-50 at full size, {sizes}, {_describe_run(machine, schedule, generator)}"
    write_image_report(
        options.out / options.isa, results, caption, _collect_data(machine, schedule) | {"images": sizes}
    )
    _finish(options, options.out / options.isa, section)


def write_image_report(folder: Path, results: Results, caption: str, data: dict[str, Any]) -> None:
    sections = {
        "Side by side": tables.image_table(results),
        "Open loop, one pass each": tables.open_loop_table(results),
        "Agreement": tables.agreement_table(results),
    }
    data |= {"concurrency": results.concurrency, "systems": [row.as_json() for row in results.rows.values()]}
    files.write_report(folder, data, sections["Side by side"], caption, sections)


def measure_texts(options: BenchOptions, schedule: Schedule) -> None:
    """Measure one summarizer after another with all systems. Raises BenchmarkError for an unknown name."""
    models, workloads = options.models or tuple(MODELS), options.workloads or tuple(WORKLOADS)
    check_names("--models", models, tuple(MODELS))
    check_names("--workloads", workloads, tuple(WORKLOADS))
    select_text_systems(options.systems, workloads)
    section, folder = _name_section(options, "bench-texts"), options.out / options.isa / "texts"
    titles = "; ".join(f"({workload}) {WORKLOADS[workload].title}" for workload in workloads)
    machine = collect_facts()
    print_progress(f"on {describe_machine(machine)}")
    results: dict[str, Results] = {}
    with LoadGenerator() as generator:
        for name in models:
            weights = write_text_model(MODELS[name], options.work / "texts" / name)
            scenario = TextScenario(MODELS[name], weights)
            context = RunContext(options.work, scenario, generator, print_progress)
            systems = select_text_systems(options.systems, workloads)
            results[name] = Session(context, schedule).measure(systems)
            caption = f"Full size, random weights; {titles}. "
            caption += _describe_run(machine, schedule, generator)
            # after each model, in case the next one fails
            write_text_report(folder, results, workloads, caption, _collect_data(machine, schedule))
    _finish(options, folder, section)


def write_text_report(
    folder: Path, results: dict[str, Results], workloads: Sequence[str], caption: str, data: dict[str, Any]
) -> None:
    """Write the report from the results by model name."""
    table, sections, models = "", {}, {}
    for name, model_results in results.items():
        title = MODELS[name].title
        sections[title] = tables.short_table(model_results, workloads)
        table += f"**{title}**\n\n{sections[title]}\n\n"
        for workload in workloads:
            heading = f"{title}, ({workload}): {WORKLOADS[workload].title}"
            sections[heading] = tables.workload_table(model_results, workload)
        systems = [
            row.as_json() | {"system": row.name.split()[0], "workload": row.variant}
            for row in model_results.rows.values()
        ]
        models[name] = {"concurrency": model_results.concurrency, "systems": systems}
    data = data | {
        "workloads": {name: {"title": WORKLOADS[name].title} for name in workloads},
        "models": models,
    }
    files.write_report(folder, data, table.strip(), caption, sections)


def measure_url(options: BenchOptions, schedule: Schedule) -> None:
    """Measure a model of a running server. Raises BenchmarkError if the model gives no correct answer."""
    images = load_images(options.images)
    title = f"{options.model} at {options.url}"
    system = ExternalSystem(title, find_target(options.url, options.model, images))
    machine = collect_facts()
    with LoadGenerator(options.processes) as generator:
        context = RunContext(options.work, ImageScenario(options.work, images), generator, print_progress)
        results = Session(context, schedule).measure([system])
    caption = f"{title}, load from {_describe_run(machine, schedule, generator)}"
    data = _collect_data(machine, schedule) | {"url": options.url, "model": options.model}
    write_image_report(options.out, results, caption, data)
    print((options.out / "report.md").read_text())


def find_target(url: str, model: str, images: Sequence[bytes]) -> Target:
    """Return the requests of `tune` that the model answers: images or texts. Raises BenchmarkError."""
    targets = {
        "an image": image_target(url, model, images),
        "a text": text_target(url, model, load_texts(None)),
    }
    problems = []
    for kind, target in targets.items():
        answers = send_probe(target)
        if not answers.errors:
            return target
        problems.append(f"{', '.join(answers.errors)} to {kind}")
    raise BenchmarkError(f"{model} at {url} gives no correct answer: {'; '.join(problems)}")


class ExternalSystem(System):
    """A running server. Its processes are unknown, so its memory is not measured."""

    def __init__(self, title: str, target: Target) -> None:
        super().__init__(Row(REST, title, has_open_loop=True))
        self._target = target

    def connect(self, row: Row, context: RunContext) -> Load:  # noqa: ARG002
        return ImageLoad(self._target, context.generator)


def _name_section(options: BenchOptions, run: str) -> str:
    """Return the section of docs/benchmarks.md for the results. Raises BenchmarkError for --write-docs without it."""
    section = f"{run}-{options.isa}" if options.isa else run
    if options.write_docs:
        files.replace_section(DOCS_PAGE.read_text("utf-8"), section, "")
    return section


def _finish(options: BenchOptions, folder: Path, section: str) -> None:
    print(f"{(folder / 'report.md').read_text()}\nWritten to {folder}")
    if options.write_docs:
        page, table = DOCS_PAGE.read_text("utf-8"), (folder / "table.md").read_text()
        DOCS_PAGE.write_text(files.replace_section(page, section, table), "utf-8")
    try:
        files.draw_charts(folder, options.work / "venvs")
    except SystemUnavailable as error:
        print_progress(f"charts are not drawn: {error}")


def _collect_data(machine: dict[str, Any], schedule: Schedule) -> dict[str, Any]:
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "machine": machine, "seconds": schedule.seconds, "rounds": schedule.rounds}


def _describe_run(machine: dict[str, Any], schedule: Schedule, generator: LoadGenerator) -> str:
    """Return the machine, the date and the command, and a warning if the load generator was saturated."""
    rounds = f"medians of {schedule.rounds} interleaved rounds" if schedule.rounds > 1 else "one round"
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    text = f"{describe_machine(machine)}; {rounds}, {date}, `{machine['command']}`."
    if generator.max_cpu >= MAX_GENERATOR_CPU:
        text += (
            f" The load generator was saturated ({generator.max_cpu:.0%} of a core): increase --processes."
        )
    return text
