"""Measurement of a model with a series of batch settings, each on a separate server.

`maxBatchDelay` is not tuned. For images it is 1 ms, the minimum that TorchServe accepts in model-config.yaml (0
becomes 100): a single request waits for the full delay, and under load a free worker takes all queued requests
without waiting. For texts, a slightly longer delay lets requests that arrive together start together.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from handlers.core.device import usable_cores
from torchserve_models import serving
from torchserve_models.loadgen import LoadGenerator, Measurement, Target, wait_until_answering
from torchserve_models.packing import PackingError, PackRequest, known_models, pack, read_provenance
from torchserve_models.packing.models import LAYOUT
from torchserve_models.tuning.config_file import CONFIG_NAME, copy_archive_with_config, write_config
from torchserve_models.tuning.errors import TuningError
from torchserve_models.tuning.selection import BATCH_SIZES, BatchSetting, Trial, list_settings, select_best
from torchserve_models.tuning.workload import image_target, load_images, load_texts, text_target

START_TIMEOUT_S = 180.0
WARM_UP_S = 2.0
MIN_TEXT_REQUESTS = 3
"""Minimum number of requests in a measurement of a text model."""

Report = Callable[[str], None]


def print_progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def tune(
    name: str,
    source: str | None = None,
    inputs: Path | None = None,
    concurrency: Sequence[int] = (1, 8, 32),
    seconds: float = 4.0,
    processes: int = 1,
    write: bool = True,
    report: Report = print_progress,
) -> BatchSetting:
    """Find the fastest batch setting of a model on this machine and write it to models/NAME/model-config.yaml.

    Args:
        name: A model of models/.
        source: Source of the weights, as for `pack --from`; by default the source that `pack` selects.
        inputs: Folder with JPEG images or, for summarizers, text files; by default sample inputs.
        concurrency: Numbers of clients; latency is measured with the smallest, throughput with the largest.
        seconds: Length of each measurement.
        processes: Processes of the load generator; one is enough up to about 2,000 requests/s.
        write: Whether to change the configuration file.
        report: Receives progress messages and the results.

    Returns:
        The selected setting.

    Raises:
        TuningError: The model is unknown or cannot be packed, no setting could be measured, or the file cannot be
            changed.
    """
    if name not in known_models():
        raise TuningError(f"unknown model {name!r}; models in models/: {', '.join(known_models())}")
    with tempfile.TemporaryDirectory(prefix="tune-") as folder, LoadGenerator(processes) as generator:
        archive, texts = _pack(name, source, Path(folder) / "packed", report)
        load_samples = load_texts if texts else load_images
        samples = load_samples(inputs)
        sweep = BatchSweep(name, archive, samples, generator, concurrency, seconds, Path(folder), report)
        best = sweep.run().setting
    report(f"best: {best}")
    if write:
        path = LAYOUT.models / name / CONFIG_NAME
        report(f"{path}: {'changed' if write_config(path, best.changes()) else 'unchanged'}")
    return best


def _pack(name: str, source: str | None, store: Path, report: Report) -> tuple[Path, bool]:
    """Pack the model; return the archive and whether the model generates text."""
    try:
        packed = pack(PackRequest(name, source=source, store=store), report)
        task = read_provenance(packed.path).task
    except PackingError as error:
        raise TuningError(f"{name} cannot be packed: {error}") from error
    if task not in ("image-classification", "summarization"):
        raise TuningError(f"{name} cannot be tuned: only image classifiers and summarizers are supported")
    if packed.weights == "starter":
        report(f"{name}: starter weights are small; the result is valid only for them")
    return packed.path, task == "summarization"


@dataclass(frozen=True)
class BatchSweep:
    """A sweep of batch settings for one model. `samples` are JPEG images or, for a summarizer, texts."""

    name: str
    archive: Path
    samples: list[bytes] | list[str]
    generator: LoadGenerator
    concurrency: Sequence[int]
    seconds: float
    folder: Path
    report: Report

    def run(self) -> Trial:
        """Measure all settings and return the best trial.

        For images, smaller values of `max_batch` are then measured with the best batch size.

        Raises:
            TuningError: No setting could be measured.
        """
        header = [
            "batchSize",
            "workers",
            "max_batch",
            *(f"{n} clients: /s, p50 ms" for n in self.concurrency),
        ]
        self.report(f"{_table_row(header)}\n{_table_row(['---:'] * len(header))}")
        trials = [self._try(setting) for setting in list_settings(usable_cores())]
        if self._has_texts:
            return select_best(trials, texts=True)
        best = select_best(trials).setting
        smaller = [size for size in BATCH_SIZES if size < best.batch_size]
        return select_best([*trials, *(self._try(replace(best, max_batch=size)) for size in smaller)])

    @property
    def _has_texts(self) -> bool:
        return isinstance(self.samples[0], str)

    def _try(self, setting: BatchSetting) -> Trial:
        store, run_dir = self.folder / "store", self.folder / "run"
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(run_dir, ignore_errors=True)
        store.mkdir()
        copy_archive_with_config(self.archive, store / f"{self.name}.mar", setting.changes())
        try:
            with serving.start([self.name], run_dir=run_dir, store=store, pack=False) as server:
                trial = self._measure(setting, server)
        except (serving.RunError, OSError) as error:
            trial = Trial(setting, {}, str(error))
        self.report(_table_row(_cells(trial, self.concurrency)))
        return trial

    def _measure(self, setting: BatchSetting, server: serving.Server) -> Trial:
        target = self._target(server.inference)
        wait_until_answering(target, lambda: str(server.failure) if server.failure else None, START_TIMEOUT_S)
        self._run_load(target, max(self.concurrency), min(WARM_UP_S, self.seconds))
        return Trial(
            setting, {n: self._run_load(target, n, self.seconds).summary() for n in self.concurrency}
        )

    def _target(self, url: str) -> Target:
        texts = [sample for sample in self.samples if isinstance(sample, str)]
        images = [sample for sample in self.samples if isinstance(sample, bytes)]
        return text_target(url, self.name, texts) if texts else image_target(url, self.name, images)

    def _run_load(self, target: Target, connections: int, seconds: float) -> Measurement:
        if self._has_texts:
            return self.generator.drained_loop(target, connections, seconds, MIN_TEXT_REQUESTS)
        return self.generator.closed_loop(target, connections, seconds)


def _cells(trial: Trial, concurrency: Sequence[int]) -> list[str]:
    setting = trial.setting
    cells = [str(setting.batch_size), str(setting.workers), str(setting.max_batch or "")]
    if trial.problem:
        return [*cells, f"failed: {trial.problem}"]
    summaries = [trial.closed[connections] for connections in concurrency]
    return cells + [f"{summary.requests_per_second:.1f}, {summary.p50:.1f}" for summary in summaries]


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
