"""Pack weights, handlers, configuration and provenance into a reproducible model archive."""

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torchserve_models.packing.archive import archiver, earlier_versions, mar_file, provenance
from torchserve_models.packing.archive.mar_file import ArchiveMember
from torchserve_models.packing.archive.model_config import read_model_config
from torchserve_models.packing.archive.provenance import Provenance
from torchserve_models.packing.artifacts.artifact_description import summarize
from torchserve_models.packing.artifacts.artifact_request import ArtifactRequest
from torchserve_models.packing.artifacts.preparation import PreparedArtifacts, prepare
from torchserve_models.packing.errors import InvalidSource, explain_os_errors
from torchserve_models.packing.models import LAYOUT, RepositoryLayout
from torchserve_models.packing.names import check_name, check_version
from torchserve_models.packing.request import PackRequest, Report
from torchserve_models.packing.sources import user_handler
from torchserve_models.packing.sources.model_files import sha256_and_size
from torchserve_models.packing.sources.resolve import WeightSource, resolve_source

_SKIPPED = {"__pycache__", "tests"}


@dataclass(frozen=True)
class PackedArchive:
    """A built archive.

    Attributes:
        path: The archive in the store.
        name: Name of the model.
        version: Version of the model: kind of weights and digest of the content.
        weights: Kind of weights, such as "starter".
        sha256: Digest of the archive.
        size: Size of the archive in bytes.
        unchanged: Whether the store already had exactly this archive.
        prepared: Human-readable summary of the files prepared for the engine.
    """

    path: Path
    name: str
    version: str
    weights: str
    sha256: str
    size: int
    unchanged: bool
    prepared: str = ""


def print_message(message: str) -> None:
    """Print a message for the user to stderr."""
    print(message, file=sys.stderr, flush=True)


def pack(
    request: PackRequest, report: Report = print_message, layout: RepositoryLayout = LAYOUT
) -> PackedArchive:
    """Build the requested archive.

    Args:
        request: The model, its source and the output folder.
        report: Receives messages for the user while this runs, such as which weights are used and why.
        layout: The folders of the repository.

    Returns:
        The archive in the store.

    Raises:
        PackingError: The archive cannot be built. The store is unchanged, and the message says what to do.
    """
    check_name(request.name)
    with explain_os_errors(f"packing {request.name}"), tempfile.TemporaryDirectory(prefix="packing-") as work:
        if request.handler is None:
            source = resolve_source(request, layout, report, Path(work))
            entry = layout.handlers / source.task.entry
        else:
            entry = Path(request.handler).expanduser()
            source = user_handler.resolve_source(request, entry, layout)
        return _build(request, source, entry, report, layout)


def _build(
    request: PackRequest, source: WeightSource, entry: Path, report: Report, layout: RepositoryLayout
) -> PackedArchive:
    """Write the archive of a resolved source unless the store already contains the same archive."""
    name = request.name
    path = (layout.store if request.store is None else request.store) / f"{name}.mar"
    config = read_model_config(name, source.task, layout, report)
    code = _read_handlers(layout, entry)
    artifact_request = ArtifactRequest(
        name, source, config.engine, config.precision, path, layout, config.settings
    )
    artifacts = prepare(artifact_request, request.calibrate, report)
    source = replace(source, files=(*source.files, *artifacts.files))
    content = {archiver.MODEL_CONFIG: config.content, **code}
    provenance_record = _make_provenance(name, config.engine, source, artifacts, content)
    check_version(provenance_record.version)
    extra = {**code, provenance.MEMBER: provenance_record.as_json()}
    members = archiver.stage_members(
        name, provenance_record.version, source.task.entry, config.content, extra
    )
    members += [
        ArchiveMember(f"model/{file.name}", file.path, file.size, file.sha256) for file in source.files
    ]
    unchanged = mar_file.has_same_content(path, members)
    if not unchanged:
        previous = earlier_versions.keep(path, provenance_record.version) if request.keep else None
        mar_file.write(path, members)
        earlier_versions.prune(path, request.keep)
        if previous is not None:
            report(f"{name}: the previous archive is kept as {previous.name}")
    sha256, size = sha256_and_size(path)
    return PackedArchive(
        path,
        name,
        provenance_record.version,
        source.kind,
        sha256,
        size,
        unchanged,
        summarize(artifacts.facts),
    )


def _make_provenance(
    name: str, engine: str, source: WeightSource, artifacts: PreparedArtifacts, content: dict[str, bytes]
) -> Provenance:
    """Return the provenance, whose version contains a digest of all content of the archive."""
    statement = Provenance(
        name=name,
        version="",
        task=source.task.name,
        weights=source.kind,
        source=source.label,
        revision=source.revision,
        files={f"model/{file.name}": file.sha256 for file in source.files},
        license=source.license,
        libraries=provenance.libraries(),
        engine=engine,
        architecture=source.architecture,
        prepared=artifacts.facts,
    )
    digests = {member: hashlib.sha256(data).hexdigest() for member, data in content.items()}
    everything = json.dumps([asdict(statement), digests], sort_keys=True).encode()
    return replace(statement, version=f"{source.kind}-{hashlib.sha256(everything).hexdigest()[:8]}")


def _read_handlers(layout: RepositoryLayout, entry: Path) -> dict[str, bytes]:
    """Return the files of handlers/ by member name. The entry module is at the top level, as TorchServe requires."""
    if not entry.is_file():
        raise InvalidSource(
            f"{entry} is missing from the checkout. Restore it, for example with `git checkout`."
        )
    members = {}
    for path in sorted(layout.handlers.rglob("*")):
        parts = path.relative_to(layout.root).parts
        hidden = any(part in _SKIPPED or part.startswith(".") for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            members["/".join(parts)] = path.read_bytes()
    return {entry.name: entry.read_bytes(), **members}
