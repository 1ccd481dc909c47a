"""Finds a model's best batch policy on this machine and writes it into models/NAME/model-config.yaml.

maxBatchDelay stays as it is: for pictures 1 ms, the least that TorchServe takes from a model's configuration (0
becomes 100), as an idle request pays it in full and a free worker takes what has queued anyway; for texts, whose
batches take long, a little more lets those that come together start together.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import serving
from benchmarks.errors import BenchError, Unavailable
from benchmarks.generator import Generator
from benchmarks.outcomes import Summary
from benchmarks.report import line
from benchmarks.systems.base import Workplace, wait_for_answer
from benchmarks.systems.product import clear_run, packed
from benchmarks.tune_config import CONFIG, configured_copy, write
from benchmarks.work import address_of, pictures_to, texts_to
from packing import PackingError, known_models, pack, read_provenance
from packing.models import LAYOUT

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WORKERS = (1, 2, 4)
NEAR = (
    0.93  # of the best throughput: then fewer workers, each with the weights in memory, and smaller batches
)
LATER_MS = 3.0  # more than the least that an idle request may take


@dataclass(frozen=True)
class Setting:
    """`max_batch` of `handler:`; None leaves it as it is, for handlers that have none."""

    batch_size: int
    workers: int = 1
    max_batch: int | None = None

    def __str__(self) -> str:
        limit = "" if self.max_batch is None else f", at most {self.max_batch} in the network at once"
        return f"batches of {self.batch_size}, workers: {self.workers}{limit}"

    def changes(self) -> dict[str, int]:
        """Keys of model-config.yaml, those of `handler:` with a dot."""
        found = {"batchSize": self.batch_size, "minWorkers": self.workers, "maxWorkers": self.workers}
        return found | ({} if self.max_batch is None else {"handler.max_batch": self.max_batch})


@dataclass(frozen=True)
class Trial:
    """`closed` by concurrency; `problem` says why there is nothing."""

    setting: Setting
    closed: dict[int, Summary]
    problem: str | None = None


def choose(trials: Iterable[Trial]) -> Trial:
    """The fewest workers, then the smallest batch, among those nearly as fast as the fastest that answer one quickly.

    Raises BenchError when nothing was measured.
    """
    measured = [
        trial for trial in trials if trial.closed and not any(s.error_count for s in trial.closed.values())
    ]
    if not measured:
        raise BenchError("no setting could be measured; nothing was changed")
    one, many = min(measured[0].closed), max(measured[0].closed)
    least = min(trial.closed[one].p50 for trial in measured)
    quick = [t for t in measured if t.closed[one].p50 <= least + LATER_MS]
    most = max(trial.closed[many].requests_per_second for trial in quick)
    near = [t for t in quick if t.closed[many].requests_per_second >= NEAR * most]
    return min(near, key=lambda t: (*_size(t.setting), -t.closed[many].requests_per_second))


def _size(setting: Setting) -> tuple[int, int, bool]:
    """What is to be small; a limit inside the batch is only set where it gains something."""
    return setting.workers, setting.batch_size, setting.max_batch is not None


@dataclass(frozen=True)
class Tuning:
    """The sweep of one model: `archive` with one configuration after the other on a server of its own."""

    name: str
    archive: Path
    place: Workplace
    generator: Generator
    concurrency: Sequence[int]
    seconds: float

    def sweep(self) -> list[Trial]:
        """Batch sizes for each number of workers; then, for the best, smaller runs of the network inside a batch."""
        trials = [self._try(setting) for setting in _settings(len(os.sched_getaffinity(0)))]
        if read_provenance(self.archive).task == "image-classification":
            best = choose(trials).setting
            smaller = [size for size in BATCH_SIZES if size < best.batch_size]
            trials += [self._try(replace(best, max_batch=size)) for size in smaller]
        return trials

    def _try(self, setting: Setting) -> Trial:
        store = self.place.root / "tune" / "store"
        clear_run(store.parent / "run")
        shutil.rmtree(store.parent, ignore_errors=True)
        store.mkdir(parents=True)
        configured_copy(self.archive, store / f"{self.name}.mar", setting.changes())
        try:
            with serving.start([self.name], run_dir=store.parent / "run", store=store, pack=False) as server:
                trial = Trial(setting, dict(self._measure(server)))
        except (serving.RunError, Unavailable) as error:
            trial = Trial(setting, {}, str(error))
        self.place.say(line(_cells(trial, self.concurrency)))
        return trial

    def _measure(self, server: serving.Server) -> Iterator[tuple[int, Summary]]:
        address = address_of(server.inference)
        if read_provenance(self.archive).task == "image-classification":
            target = pictures_to(address, self.name, self.place.pictures)
        else:
            target = texts_to(address, self.name)
        wait_for_answer(target, lambda: str(server.failure) if server.failure else None)
        self.generator.closed(target, max(self.concurrency), min(2.0, self.seconds))
        for concurrency in self.concurrency:
            yield concurrency, self.generator.closed(target, concurrency, self.seconds).summary()


def _settings(cores: int) -> list[Setting]:
    return [Setting(size, workers) for workers in WORKERS if workers <= cores for size in BATCH_SIZES]


def archive_of(name: str, place: Workplace) -> Path:
    """An archive to tune with: of full size where the benchmark has such weights, else what `auto` takes.

    Raises BenchError.
    """
    if name not in known_models():
        raise BenchError(
            f"--tune: there is no model {name!r} in models/; known are {', '.join(known_models())}"
        )
    if name == "resnet-50":
        return packed(place, int8=False).path
    try:
        made = pack(name, store=place.root / "store-tune", report=place.say)
    except PackingError as error:
        raise BenchError(f"{name} cannot be packed: {error}") from error
    if made.weights == "starter":
        place.say(f"{name}: the STARTER weights are small; what is found holds for them")
    return made.path


def tune(
    name: str, place: Workplace, generator: Generator, concurrency: Sequence[int], seconds: float
) -> dict[str, int]:
    """Sweeps, prints the table, and writes what it found; returns the keys that it changed."""
    tuning = Tuning(name, archive_of(name, place), place, generator, concurrency, seconds)
    head = ["batchSize", "workers", "max_batch", *(f"{each} at once: /s, p50 ms" for each in concurrency)]
    place.say(f"{line(head)}\n{line(['---:'] * len(head))}")
    best = choose(tuning.sweep())
    path = LAYOUT.models / name / CONFIG
    before = path.read_text(encoding="utf-8")
    write(path, best.setting.changes())
    place.say(f"best: {best.setting}")
    place.say(f"{path}: {'as it was' if path.read_text(encoding='utf-8') == before else 'changed'}")
    return best.setting.changes()


def _cells(trial: Trial, concurrency: Sequence[int]) -> list[str]:
    setting = trial.setting
    cells = [str(setting.batch_size), str(setting.workers), str(setting.max_batch or "")]
    if trial.problem:
        return [*cells, f"failed: {trial.problem}"]
    found = [trial.closed[each] for each in concurrency]
    return cells + [f"{each.requests_per_second:.1f}, {each.p50:.1f}" for each in found]
