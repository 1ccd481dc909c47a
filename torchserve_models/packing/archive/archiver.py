"""Run torch-model-archiver, which creates all members of an archive except the weights.

The archiver stages files in the temporary folder under the model's name, splits its options at commas and expands
wildcards in them. Therefore it runs in a separate process, in a private folder that is also its TMPDIR, with short
file names.
"""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torchserve_models.packing.archive.mar_file import ArchiveMember
from torchserve_models.packing.errors import PackingError, explain_os_errors
from torchserve_models.processes import run_module

MODEL_CONFIG = "model-config.yaml"
MANIFEST = "MAR-INF/MANIFEST.json"

_CREATED_ON = (
    "01/01/1980 00:00:00"  # the archiver writes the clock here; the same inputs must give the same bytes
)


def stage_members(
    name: str, version: str, entry: str, config: bytes, extra: Mapping[str, bytes]
) -> list[ArchiveMember]:
    """Run torch-model-archiver on a handler and its configuration, and return the resulting members.

    Args:
        name: Name of the model.
        version: Version of the model.
        entry: File name of the entry module, which becomes the manifest's handler.
        config: Content of model-config.yaml.
        extra: Other members by name, which must include the entry module.

    Raises:
        PackingError: The archiver failed. The message contains its last line.
    """
    with (
        explain_os_errors("staging the archive"),
        tempfile.TemporaryDirectory(prefix="packing-") as temporary,
    ):
        stage = Path(temporary)
        for folder in ("tmp", "out", "extra"):
            (stage / folder).mkdir()
        (stage / MODEL_CONFIG).write_bytes(config)
        for member, content in extra.items():
            path = stage / member if member == entry else stage / "extra" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _run(stage, name, version, entry)
        output = stage / "out" / name
        contents = {
            path.relative_to(output).as_posix(): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }
    manifest = contents.pop(MANIFEST, b"{}")
    if contents != {**extra, MODEL_CONFIG: config}:
        raise PackingError("torch-model-archiver did not copy its input files unchanged; run scripts/setup.")
    return [
        ArchiveMember.of_bytes(*item) for item in {**contents, MANIFEST: _set_creation_time(manifest)}.items()
    ]


def _run(stage: Path, name: str, version: str, entry: str) -> None:
    options = {
        "--model-name": name,
        "--version": version,
        "--handler": entry,
        "--extra-files": "extra",
        "--config-file": MODEL_CONFIG,
        "--export-path": "out",
        "--archive-format": "no-archive",
    }
    arguments = [part for option in options.items() for part in option]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["TMPDIR"] = str(stage / "tmp")
    result = run_module("model_archiver.model_packaging", arguments, environment, stage)
    if result.returncode != 0:
        message = result.message or "no message"
        if "No space left" in message or "Disk quota" in message:
            raise OSError(errno.ENOSPC, "No space left on device", str(stage))
        raise PackingError(f"torch-model-archiver failed on {name}: {message}")


def _set_creation_time(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["createdOn"] = _CREATED_ON
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
