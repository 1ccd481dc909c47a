"""Cached preparation of engine files.

The modules of packing/engines run in a separate process, because packing imports neither torch nor OpenVINO. The
cache can be deleted; int8 must then be calibrated again with --calibrate, because the cache has the images' path.
"""

import errno
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchserve_models.packing.archive import provenance
from torchserve_models.packing.artifacts import cache
from torchserve_models.packing.artifacts.artifact_description import (
    warn_about_generic_labels,
    warn_about_int8,
)
from torchserve_models.packing.artifacts.artifact_request import ArtifactRequest
from torchserve_models.packing.artifacts.cache_key import compute_key
from torchserve_models.packing.artifacts.calibration_images import CalibrationImages, select_images
from torchserve_models.packing.errors import (
    InvalidArchive,
    InvalidOptions,
    InvalidSource,
    PreparationError,
    explain_os_errors,
)
from torchserve_models.packing.request import Report
from torchserve_models.packing.sources.model_files import ModelFile, sha256_and_size
from torchserve_models.packing.sources.run_conversion import REJECTED_EXIT_CODE
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION
from torchserve_models.paths import ROOT
from torchserve_models.processes import run_module

NO_CALIBRATION = "none"
"""Value of --calibrate that removes int8."""

_FACTS = "prepared.json"
_INT8_ENGINES = ("auto", "openvino")
_DISK_FULL_MESSAGES = ("No space left", "Disk quota", "iostream error")
"""Parts of error messages of a full disk; the last one is from OpenVINO."""

_MODULES = {
    IMAGE_CLASSIFICATION.name: "torchserve_models.packing.engines.classifier",
    SUMMARIZATION.name: "torchserve_models.packing.engines.summarizer",
}
"""Preparation modules by task name."""


@dataclass(frozen=True)
class PreparedArtifacts:
    """The prepared files of an archive.

    Attributes:
        files: Prepared files, with names relative to model/.
        facts: Description of the files for provenance.json.
    """

    files: tuple[ModelFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def prepare(request: ArtifactRequest, calibrate: str | Path | None, report: Report) -> PreparedArtifacts:
    """Prepare the engine files of an archive, or return none for a task without preparation.

    Args:
        request: The archive.
        calibrate: A folder with images for int8, "none" for no int8, or None to keep the int8 of the archive in the
            store.
        report: Receives messages for the user.

    Raises:
        InvalidOptions: int8 is not possible for this model, or the images cannot be used.
        InvalidSource: Workers cannot load the model.
        PreparationError: The process failed. The store and the cache are unchanged.
    """
    task = request.source.task
    if calibrate is not None and task != IMAGE_CLASSIFICATION:
        raise InvalidOptions(
            f"--calibrate is only for image classifiers, but the task of {request.name} is {task.name}."
        )
    if task.name not in _MODULES:
        return PreparedArtifacts()
    with explain_os_errors(f"preparing {request.name}"), cache.lock_cache(request.cache):
        images = _find_images(request, calibrate, report) if task == IMAGE_CLASSIFICATION else None
        entry = request.cache / compute_key(request, images)
        if not _is_complete(entry):
            shutil.rmtree(entry, ignore_errors=True)
            _create_entry(request, images, entry)
        if images and images.folder:
            cache.write_images_folder(request.cache, images.folder)
        cache.prune(request.cache, entry)
        files = tuple(_as_model_file(path) for path in sorted(entry.iterdir()))
        facts = json.loads((entry / _FACTS).read_bytes())
    warn_about_int8(request.name, facts, report)
    if task == IMAGE_CLASSIFICATION:
        warn_about_generic_labels(request.name, (*request.source.files, *files), report)
    if images is not None:
        facts["calibration"] = {"images": images.count, "sha256": images.sha256}
    return PreparedArtifacts(files, facts)


def _find_images(
    request: ArtifactRequest, calibrate: str | Path | None, report: Report
) -> CalibrationImages | None:
    """Return the images for int8 calibration, or None if int8 is not requested."""
    if calibrate is None:
        return _find_earlier_images(request, report)
    if str(calibrate) == NO_CALIBRATION:
        return None
    if request.engine not in _INT8_ENGINES:
        raise InvalidOptions(
            f"int8 requires OpenVINO, but {request.name} has handler.engine: {request.engine}. Omit --calibrate, or "
            f"set handler.engine to {' or '.join(_INT8_ENGINES)}."
        )
    return _select_images(request.name, Path(calibrate).expanduser(), report)


def _find_earlier_images(request: ArtifactRequest, report: Report) -> CalibrationImages | None:
    """Return the calibration images of the archive in the store, or None if the archive has no int8.

    If the cache has no int8 for the current model and code, the images are read again from their folder.
    """
    earlier = _read_calibration(request.archive)
    if earlier is None:
        return None
    if request.engine not in _INT8_ENGINES:
        reason = f"int8 requires OpenVINO, but handler.engine is {request.engine} now"
        _warn_about_lost_int8(request.name, reason, report)
        return None
    if (request.cache / compute_key(request, earlier)).is_dir():
        report(f"{request.name}: keeping the int8 network calibrated with {earlier.count} images")
        return earlier
    try:
        return _select_images(request.name, cache.read_images_folder(request.cache), report)
    except (OSError, InvalidOptions) as error:
        cause = (
            "the path of their folder is not in the cache or cannot be read"
            if isinstance(error, OSError)
            else str(error)
        )
        reason = f"int8 must be calibrated again, but the {earlier.count} images are not available: {cause}"
        _warn_about_lost_int8(request.name, reason, report)
        return None


def _warn_about_lost_int8(name: str, reason: str, report: Report) -> None:
    report(
        f"{name}: WARNING: packing without int8, which the previous archive had.\n"
        f"  Reason: {reason}\n"
        f"  To add int8 again, set handler.engine to auto or openvino and run scripts/pack {name} --calibrate FOLDER."
    )


def _select_images(name: str, folder: Path, report: Report) -> CalibrationImages:
    if importlib.util.find_spec("nncf") is None:
        raise InvalidOptions(
            "--calibrate requires NNCF, which is not installed. Run scripts/setup --calibrate."
        )
    images = select_images(folder, report)
    report(f"{name}: calibrating int8 with {images.count} images of {folder}")
    return images


def _read_calibration(archive: Path) -> CalibrationImages | None:
    """Return the number and digest of an archive's calibration images, or None if the archive has no int8."""
    try:
        calibration = provenance.read_provenance(archive).prepared["calibration"]
        return CalibrationImages(calibration["images"], calibration["sha256"])
    except (InvalidArchive, KeyError, TypeError):
        return None


def _create_entry(request: ArtifactRequest, images: CalibrationImages | None, entry: Path) -> None:
    """Prepare the files in a partial folder and rename that folder to `entry`. The cache must be locked."""
    partial = cache.new_partial(request.cache)
    try:
        with tempfile.TemporaryDirectory(prefix="packing-") as temporary:
            folder = Path(temporary)
            _link_files(folder / "model", {file.name: file.path for file in request.source.files})
            paths = images.paths if images else ()
            _link_files(
                folder / "images", {f"{index:04}{path.suffix}": path for index, path in enumerate(paths)}
            )
            arguments = ["model", str(partial.absolute())]
            arguments += ["--engine", request.engine]
            if request.source.task == SUMMARIZATION:
                arguments += ["--settings", json.dumps(dict(request.settings))]
            else:
                arguments += ["--precision", request.precision]
            if paths:
                arguments += ["--images", "images"]
            _run(request, folder, arguments)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_complete(entry: Path) -> bool:
    """Return whether an entry exists and lacks no file.

    An entry without a compiled decoding step is incomplete, because the missing compiler may be installed by now.
    """
    if not entry.is_dir():
        return False
    facts = json.loads((entry / _FACTS).read_bytes())
    return "none" not in facts.get("step_kernels", {})


def _link_files(folder: Path, files: Mapping[str, Path]) -> None:
    """Create a folder of links to `files`, so that the process finds all files in one folder."""
    folder.mkdir()
    for name, path in files.items():
        (folder / name).symlink_to(path.absolute())


def _run(request: ArtifactRequest, folder: Path, arguments: Sequence[str]) -> None:
    """Run the preparation module of the task in `folder`."""
    # The handlers that go into the archive come first, then the package of this process.
    roots = (request.layout.root.absolute(), ROOT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "HF_HUB_OFFLINE": "1"}
    result = run_module(_MODULES[request.source.task.name], arguments, environment, folder)
    if result.returncode == 0:
        return
    if result.returncode == REJECTED_EXIT_CODE and result.message:
        raise InvalidSource(f"{request.source.label} cannot be served: {result.message}.")
    if any(text in result.message for text in _DISK_FULL_MESSAGES):
        raise OSError(errno.ENOSPC, "No space left on device", str(request.cache))
    reason = result.message or "no message"
    raise PreparationError(f"Preparing {request.name} for the engine {request.engine} failed: {reason}")


def _as_model_file(path: Path) -> ModelFile:
    sha256, size = sha256_and_size(path)
    return ModelFile(f"prepared/{path.name}", path, size, sha256)
