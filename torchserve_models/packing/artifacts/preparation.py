"""Runs what prepares a task's models, so that workers have less to do at their start, and caches what it makes.

It runs in a process of its own, as packing imports neither torch nor OpenVINO. The cache can be deleted at any time.
"""

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchserve_models.packing.archive import provenance
from torchserve_models.packing.artifacts import cache
from torchserve_models.packing.artifacts.calibration_images import Images, choose
from torchserve_models.packing.artifacts.facts import warn_of_int8, warn_of_unnamed
from torchserve_models.packing.errors import BadArchive, BadRequest, BadSource, NotPrepared, explained
from torchserve_models.packing.models import Layout
from torchserve_models.packing.sources.conversion import REFUSED
from torchserve_models.packing.sources.model_files import ModelFile, sha256_and_size, sha256_of
from torchserve_models.packing.sources.resolve import Report, Source
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION

NO_CALIBRATION = "none"
"""What --calibrate takes to drop int8."""

_FACTS = "prepared.json"
_WITH_INT8 = ("auto", "openvino")
_FOR_ONE_CPU = "torch-compiled"
_DISK_FULL = ("No space left", "Disk quota", "iostream error")  # the last is all that OpenVINO says of it
_MODULES = {
    IMAGE_CLASSIFICATION.name: "handlers.engines.prepare",
    SUMMARIZATION.name: "handlers.engines.seq2seq.prepare",
}
_CODE = ("engines", "text", "vision")  # of handlers/: what decides the bytes that preparing makes


@dataclass(frozen=True)
class ArtifactRequest:
    """The archive to prepare for; `archive` is its place in the store, where an earlier one may lie."""

    name: str
    source: Source
    engine: str
    precision: str
    archive: Path
    layout: Layout
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The `handler:` section of its configuration, which a summarizer is checked against."""

    @property
    def cache(self) -> Path:
        return self.layout.prepared / self.name


@dataclass(frozen=True)
class Prepared:
    """Files for the archive, named as below model/, and what provenance.json says about them."""

    files: tuple[ModelFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def prepare(artifact_request: ArtifactRequest, calibrate: str | Path | None, report: Report) -> Prepared:
    """What the archive gets beside weights and handlers; nothing for a task that has nothing to prepare.

    `calibrate` is a folder with images for int8, "none" for no int8, or None for what the archive in the store has:
    calibrated once, it stays so.
    Raises BadRequest, or NotPrepared with the reason that the process gave; store and cache are then as before.
    """
    task = artifact_request.source.task
    if calibrate is not None and task != IMAGE_CLASSIFICATION:
        raise BadRequest(
            f"--calibrate is for image classifiers; {artifact_request.name} is a model for {task.name}."
        )
    if task.name not in _MODULES:
        return Prepared()
    with explained(f"preparing {artifact_request.name}"), cache.locked(artifact_request.cache):
        images = _images(artifact_request, calibrate, report) if task == IMAGE_CLASSIFICATION else None
        entry = artifact_request.cache / _key(artifact_request, images)
        if not _is_whole(entry):
            shutil.rmtree(entry, ignore_errors=True)
            _make(artifact_request, images, entry)
        if images and images.folder:
            cache.remember(artifact_request.cache, images.folder)
        cache.prune(artifact_request.cache, entry)
        files = tuple(_file(path) for path in sorted(entry.iterdir()))
        facts = json.loads((entry / _FACTS).read_bytes())
    warn_of_int8(artifact_request.name, facts, report)
    if task == IMAGE_CLASSIFICATION:
        warn_of_unnamed(artifact_request.name, (*artifact_request.source.files, *files), report)
    if images is not None:
        facts["calibration"] = {"images": images.count, "sha256": images.sha256}
    return Prepared(files, facts)


def _images(artifact_request: ArtifactRequest, calibrate: str | Path | None, report: Report) -> Images | None:
    """The images for int8; None without int8."""
    if calibrate is None:
        return _as_before(artifact_request, report)
    if str(calibrate) == NO_CALIBRATION:
        return None
    if artifact_request.engine not in _WITH_INT8:
        raise BadRequest(
            f"int8 needs OpenVINO, and {artifact_request.name} asks for the engine "
            f"{artifact_request.engine}: leave --calibrate out, or set `engine` of its "
            f"model-config.yaml to {' or '.join(_WITH_INT8)}."
        )
    return _chosen(artifact_request.name, Path(calibrate).expanduser(), report)


def _as_before(artifact_request: ArtifactRequest, report: Report) -> Images | None:
    """What keeps the int8 of an archive that has it: from the cache, or made again with the images it came from."""
    before = _calibration_of(artifact_request.archive)
    if before is None:
        return None
    if artifact_request.engine not in _WITH_INT8:
        _without_int8(
            artifact_request.name,
            f"it needs OpenVINO, and the engine is {artifact_request.engine} now",
            report,
        )
        return None
    if (artifact_request.cache / _key(artifact_request, before)).is_dir():
        report(f"{artifact_request.name}: int8 as calibrated before, with {before.count} images")
        return before
    try:
        return _chosen(artifact_request.name, cache.remembered(artifact_request.cache), report)
    except (OSError, BadRequest) as error:
        why = "their folder is not remembered" if isinstance(error, OSError) else str(error)
        _without_int8(
            artifact_request.name,
            f"it has to be made again, and the {before.count} images are not at hand: {why}",
            report,
        )
        return None


def _without_int8(name: str, why: str, report: Report) -> None:
    report(
        f"{name}: WARNING: packing without int8, which it had.\n"
        f"  Why: {why}\n"
        f"  To have it again: scripts/pack {name} --calibrate FOLDER, with OpenVINO as the engine."
    )


def _chosen(name: str, folder: Path, report: Report) -> Images:
    if importlib.util.find_spec("nncf") is None:
        raise BadRequest("NNCF, which makes int8, is not installed: run scripts/setup --calibrate.")
    chosen = choose(folder, report)
    report(f"{name}: int8 from {chosen.count} images of {folder}")
    return chosen


def _calibration_of(archive: Path) -> Images | None:
    try:
        calibration = provenance.read_provenance(archive).prepared["calibration"]
        return Images(calibration["images"], calibration["sha256"])
    except (BadArchive, KeyError, TypeError):
        return None


def _key(artifact_request: ArtifactRequest, images: Images | None) -> str:
    """A digest of everything that decides what preparing makes; not NNCF or g++: what another one made is as good."""
    folders = [artifact_request.layout.handlers / part for part in _CODE]
    code = [path for each in folders for path in sorted(each.rglob("*")) if path.suffix in (".py", ".cpp")]
    inputs = {
        "model": {file.name: file.sha256 for file in artifact_request.source.files},
        "engine": artifact_request.engine,
        "code": {
            path.relative_to(artifact_request.layout.handlers).as_posix(): sha256_of(path) for path in code
        },
        "libraries": provenance.libraries(),
        "images": images.sha256 if images else None,
        "cpu": [*_cpu(), artifact_request.precision] if artifact_request.engine == _FOR_ONE_CPU else None,
        "settings": dict(artifact_request.settings)
        if artifact_request.source.task == SUMMARIZATION
        else None,
        "machine": [artifact_request.precision, platform.system(), platform.machine()]
        if artifact_request.source.task == SUMMARIZATION
        else None,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _cpu() -> list[str]:
    """Model and instruction sets of this machine's CPU, and the build of torch that compiles for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    described = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return [platform.machine(), importlib.metadata.version("torch"), *sorted(described)]


def _make(artifact_request: ArtifactRequest, images: Images | None, entry: Path) -> None:
    """Fills `entry` whole or not at all; call it with the cache locked."""
    partial = cache.fresh(artifact_request.cache)
    try:
        with tempfile.TemporaryDirectory(prefix="packing-") as temporary:
            stage = Path(temporary)
            _link(stage / "model", {file.name: file.path for file in artifact_request.source.files})
            paths = images.paths if images else ()
            _link(stage / "images", {f"{at:04}{path.suffix}": path for at, path in enumerate(paths)})
            options = ["--images", "images"] if paths else []
            asked = ["--engine", artifact_request.engine, "--precision", artifact_request.precision]
            if artifact_request.source.task == SUMMARIZATION:
                asked += ["--settings", json.dumps(dict(artifact_request.settings))]
            _run(artifact_request, stage, ["model", str(partial.absolute()), *asked, *options])
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_whole(entry: Path) -> bool:
    """Whether all could be made: what no compiler was there for may be possible now."""
    return entry.is_dir() and "none" not in json.loads((entry / _FACTS).read_bytes()).get(
        "step_attention", {}
    )


def _link(folder: Path, files: Mapping[str, Path]) -> None:
    """A folder of links: the hub's cache and a person's folder are then the same to what reads it."""
    folder.mkdir()
    for name, path in files.items():
        (folder / name).symlink_to(path.absolute())


def _run(artifact_request: ArtifactRequest, stage: Path, arguments: Sequence[str]) -> None:
    command = [sys.executable, "-P", "-m", _MODULES[artifact_request.source.task.name], *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": str(artifact_request.layout.root.absolute()),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command, cwd=stage, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        words = [f"the process was ended by {name}, as the system does where memory runs out"]
    if done.returncode == REFUSED and done.stderr.strip():
        raise BadSource(f"{artifact_request.source.label} cannot be served: {words[-1]}.")
    if any(said in words[-1] for said in _DISK_FULL):
        raise OSError(errno.ENOSPC, "No space left on device", str(artifact_request.cache))
    raise NotPrepared(
        f"Preparing {artifact_request.name} for the engine {artifact_request.engine} failed: {words[-1]}"
    )


def _file(path: Path) -> ModelFile:
    sha256, size = sha256_and_size(path)
    return ModelFile(f"prepared/{path.name}", path, size, sha256)
