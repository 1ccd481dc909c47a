"""The cache key of prepared files: a digest of all inputs that determine their content."""

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path

from torchserve_models.packing.archive import provenance
from torchserve_models.packing.artifacts.artifact_request import ArtifactRequest
from torchserve_models.packing.artifacts.calibration_images import CalibrationImages
from torchserve_models.packing.sources.model_files import sha256_of
from torchserve_models.packing.tasks import SUMMARIZATION

_CPU_SPECIFIC_ENGINE = "torch-compiled"

_HANDLER_CODE = ("core/config.py", "core/device.py", "engines", "text", "vision")
"""Files and folders of handlers/ that affect checks and prepared files."""

_PACKING = Path(__file__).parent.parent
_PACKING_CODE = ("engines",)
"""Files and folders of torchserve_models/packing/ that affect checks and prepared files."""


def compute_key(request: ArtifactRequest, images: CalibrationImages | None) -> str:
    """Return the cache key for preparing `request` with `images`.

    The versions of NNCF and g++ are not part of the key, because files that other versions created remain valid.
    """
    is_summarizer = request.source.task == SUMMARIZATION
    is_cpu_specific = request.engine == _CPU_SPECIFIC_ENGINE
    inputs = {
        "model": {file.name: file.sha256 for file in request.source.files},
        "engine": request.engine,
        "code": _code_digests(request.layout.handlers),
        "libraries": provenance.libraries(),
        "images": images.sha256 if images else None,
        "cpu": [*_describe_cpu(), request.precision] if is_cpu_specific else None,
        "settings": dict(request.settings) if is_summarizer else None,
        "machine": [request.precision, platform.system(), platform.machine()] if is_summarizer else None,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _code_digests(handlers: Path) -> dict[str, str]:
    """Return a mapping from paths to SHA-256 digests of the code that affects prepared files."""
    digests = {}
    for base, names in ((handlers, _HANDLER_CODE), (_PACKING, _PACKING_CODE)):
        for root in (base / name for name in names):
            for path in (root, *root.rglob("*")):
                if path.suffix in (".py", ".cpp", ".h"):
                    digests[f"{base.name}/{path.relative_to(base).as_posix()}"] = sha256_of(path)
    return digests


def _describe_cpu() -> list[str]:
    """Return the architecture, model and instruction sets of this CPU, and the torch build."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    properties = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return [platform.machine(), importlib.metadata.version("torch"), *sorted(properties)]
