"""Finds a model's best batch policy on this machine and writes it into models/NAME/model-config.yaml.

maxBatchDelay stays as it is: for images 1 ms, the least that TorchServe takes from a model's configuration (0
becomes 100), as an idle request pays it in full and a free worker takes what has queued anyway; for texts, whose
batches take long, a little more lets those that come together start together.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.errors import BenchError, Unavailable
from benchmarks.report import line
from benchmarks.systems.base import Workplace, wait_for_answer
from benchmarks.systems.product import clear_run, packed
from benchmarks.texts import product as texts_product
from benchmarks.texts.models import MODELS, TextModel, full_size
from benchmarks.texts.systems import LEAST, target
from benchmarks.texts.workloads import WORKLOADS
from benchmarks.tune_config import CONFIG, configured_copy, write
from benchmarks.work import Address, address_of, images_to, texts_to
from torchserve_models import serving
from torchserve_models.loadgen import LoadGenerator, Summary, Target
from torchserve_models.packing import PackingError, known_models, pack, read_provenance
from torchserve_models.packing.models import LAYOUT

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WORKERS = (1, 2, 4)
NEAR = (
    0.93  # of the best throughput: then fewer workers, each with the weights in memory, and smaller batches
)
LATER_MS = 3.0  # more than the least that an idle request may take
FEW_ANSWERS = 0.25
"""Of the least, where that is more, for texts: few answers that take long differ by as much by chance."""


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


def choose(trials: Iterable[Trial], texts: bool = False) -> Trial:
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
    later = max(LATER_MS, FEW_ANSWERS * least) if texts else LATER_MS
    quick = [t for t in measured if t.closed[one].p50 <= least + later]
    most = max(trial.closed[many].requests_per_second for trial in quick)
    near = [t for t in quick if t.closed[many].requests_per_second >= NEAR * most]
    return min(near, key=lambda t: (*_size(t.setting), -t.closed[many].requests_per_second))


def _size(setting: Setting) -> tuple[int, int, bool]:
    """What is to be small; a limit inside the batch is only set where it gains something."""
    return setting.workers, setting.batch_size, setting.max_batch is not None


class Subject(NamedTuple):
    """What is tuned, and with which requests; an answer takes seconds where they are `texts`."""

    archive: Path
    requests: Callable[[Address], Target]
    texts: bool


@dataclass(frozen=True)
class Tuning:
    """The sweep of one model: its archive with one configuration after the other on a server of its own."""

    name: str
    subject: Subject
    place: Workplace
    generator: LoadGenerator
    concurrency: Sequence[int]
    seconds: float

    def sweep(self) -> list[Trial]:
        """Batch sizes for each number of workers; then, for the best, smaller runs of the network inside a batch."""
        trials = [self._try(setting) for setting in _settings(len(os.sched_getaffinity(0)))]
        if not self.subject.texts:
            best = choose(trials).setting
            smaller = [size for size in BATCH_SIZES if size < best.batch_size]
            trials += [self._try(replace(best, max_batch=size)) for size in smaller]
        return trials

    def _try(self, setting: Setting) -> Trial:
        store = self.place.root / "tune" / "store"
        clear_run(store.parent / "run")
        shutil.rmtree(store.parent, ignore_errors=True)
        store.mkdir(parents=True)
        configured_copy(self.subject.archive, store / f"{self.name}.mar", setting.changes())
        try:
            with serving.start([self.name], run_dir=store.parent / "run", store=store, pack=False) as server:
                trial = Trial(setting, dict(self._measure(server)))
        except (serving.RunError, Unavailable) as error:
            trial = Trial(setting, {}, str(error))
        self.place.say(line(_cells(trial, self.concurrency)))
        return trial

    def _measure(self, server: serving.Server) -> Iterator[tuple[int, Summary]]:
        requests = self.subject.requests(address_of(server.inference))
        load = (
            partial(self.generator.drained_loop, min_requests=LEAST)
            if self.subject.texts
            else self.generator.closed_loop
        )
        wait_for_answer(requests, lambda: str(server.failure) if server.failure else None)
        load(requests, max(self.concurrency), min(2.0, self.seconds))
        for concurrency in self.concurrency:
            yield concurrency, load(requests, concurrency, self.seconds).summary()


def _settings(cores: int) -> list[Setting]:
    return [Setting(size, workers) for workers in WORKERS if workers <= cores for size in BATCH_SIZES]


def subject_of(name: str, place: Workplace) -> Subject:
    """An archive to tune with: of full size where the benchmark has such weights, else what `auto` takes.

    Raises BenchError.
    """
    if name not in known_models():
        raise BenchError(
            f"--tune: there is no model {name!r} in models/; known are {', '.join(known_models())}"
        )
    of_images = partial(images_to, model=name, images=place.images)
    if name == "resnet-50":
        return Subject(packed(place, int8=False).path, of_images, texts=False)
    for model in MODELS.values():
        if model.served_as == name:
            return _full_size_texts(model, place)
    try:
        made = pack(name, store=place.root / "store-tune", report=place.say)
    except PackingError as error:
        raise BenchError(f"{name} cannot be packed: {error}") from error
    if made.weights == "starter":
        place.say(f"{name}: the STARTER weights are small; what is found holds for them")
    if read_provenance(made.path).task == "image-classification":
        return Subject(made.path, of_images, texts=False)
    return Subject(made.path, partial(texts_to, model=name), texts=True)


def _full_size_texts(model: TextModel, place: Workplace) -> Subject:
    """Under the short workload, whose rate does not depend on which requests a measurement holds."""
    place = replace(place, model=full_size(model, place.root / "texts" / model.name))
    server, asked = texts_product.Product(model), WORKLOADS["a"].requests(model)
    return Subject(
        texts_product.packed(model, place).path,
        lambda address: target(server, address.port, asked),
        texts=True,
    )


def tune(
    name: str, place: Workplace, generator: LoadGenerator, concurrency: Sequence[int], seconds: float
) -> dict[str, int]:
    """Sweeps, prints the table, and writes what it found; returns the keys that it changed."""
    tuning = Tuning(name, subject_of(name, place), place, generator, concurrency, seconds)
    head = ["batchSize", "workers", "max_batch", *(f"{each} at once: /s, p50 ms" for each in concurrency)]
    place.say(f"{line(head)}\n{line(['---:'] * len(head))}")
    best = choose(tuning.sweep(), tuning.subject.texts)
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
