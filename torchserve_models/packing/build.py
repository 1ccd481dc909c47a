"""Packs one archive: source, handlers, configuration and provenance into model_store/NAME.mar."""

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torchserve_models.packing.archive import archiver, earlier_versions, mar_file, provenance
from torchserve_models.packing.archive.earlier_versions import KEPT
from torchserve_models.packing.archive.mar_file import Member
from torchserve_models.packing.archive.model_config import read_model_config
from torchserve_models.packing.archive.provenance import Provenance
from torchserve_models.packing.artifacts.facts import summary
from torchserve_models.packing.artifacts.preparation import ArtifactRequest, Prepared, prepare
from torchserve_models.packing.errors import BadSource, explained
from torchserve_models.packing.models import LAYOUT, Layout
from torchserve_models.packing.names import check_name, check_version
from torchserve_models.packing.sources import user_handler
from torchserve_models.packing.sources.conversion import StateDict
from torchserve_models.packing.sources.model_files import sha256_and_size
from torchserve_models.packing.sources.resolve import PackOptions, Report, Source, Weights, find

_SKIPPED = {"__pycache__", "tests"}


@dataclass(frozen=True)
class Packed:
    """A built archive. `unchanged` is true when the store already held exactly this one.

    `prepared` says for a person which engines' files it holds.
    """

    path: Path
    name: str
    version: str
    weights: str
    sha256: str
    size: int
    unchanged: bool
    prepared: str = ""


def say(message: str) -> None:
    """The default report: a line for a person on stderr."""
    print(message, file=sys.stderr, flush=True)


def pack(
    name: str,
    weights: Weights = "auto",
    source: str | Path | None = None,
    store: Path | None = None,
    update: bool = False,
    report: Report = say,
    layout: Layout = LAYOUT,
    calibrate: str | Path | None = None,
    pickled: bool = False,
    state_dict: StateDict | None = None,
    handler: str | Path | None = None,
    labels: Path | None = None,
    keep: int = KEPT,
) -> Packed:
    """Builds `store`/`name`.mar and returns what it is.

    `weights` chooses for a model of this repository; `source` (a hub id, a folder, or torchvision:ARCHITECTURE with
    its `state_dict`) names another one, and is then taken or fails; with `pickled` also where it has no safetensors.
    `update` moves the locked commit to the branch's present one. `calibrate` is a folder with images for int8,
    "none" for no int8, or None for what the archive in the store has. `handler` is a Python file with somebody's own
    handler; `source` is then the folder with what it loads, if anything. `labels` is a file of labels in the place of
    the model's own. Of the archives that were in its place before, the last `keep` stay as NAME-VERSION.mar.
    `report` gets what a person should read
    while this runs: which weights and why.
    Raises PackingError, with a message that says what to do; the store is then as it was.
    """
    check_name(name)
    store = layout.store if store is None else store
    options = PackOptions(
        name, weights, None if source is None else str(source), update, pickled, state_dict, labels
    )
    with explained(f"packing {name}"), tempfile.TemporaryDirectory(prefix="packing-") as work:
        if handler is None:
            found = find(options, layout, report, Path(work))
            entry = layout.handlers / found.task.entry
        else:
            entry = Path(handler).expanduser()
            found = user_handler.find(options, entry, layout)
        return _build(found, entry, store / f"{name}.mar", calibrate, report, layout, keep)


def _build(
    found: Source,
    entry: Path,
    path: Path,
    calibrate: str | Path | None,
    report: Report,
    layout: Layout,
    keep: int,
) -> Packed:
    name = path.stem
    config = read_model_config(name, found.task, layout)
    code = _handlers(layout, entry)
    artifact_request = ArtifactRequest(
        name, found, config.engine, config.precision, path, layout, config.settings
    )
    prepared = prepare(artifact_request, calibrate, report)
    found = replace(found, files=(*found.files, *prepared.files))
    content = {archiver.MODEL_CONFIG: config.content, **code}
    statement = _provenance(name, config.engine, found, prepared, content)
    check_version(statement.version)
    extra = {**code, provenance.MEMBER: statement.as_json()}
    members = archiver.lay_out(name, statement.version, found.task.entry, config.content, extra)
    members += [Member(f"model/{file.name}", file.path, file.size, file.sha256) for file in found.files]
    unchanged = mar_file.holds(path, members)
    if not unchanged:
        previous = earlier_versions.keep(path, statement.version) if keep else None
        mar_file.write(path, members)
        earlier_versions.prune(path, keep)
        if previous is not None:
            report(f"{name}: the archive before is kept as {previous.name}")
    sha256, size = sha256_and_size(path)
    return Packed(path, name, statement.version, found.kind, sha256, size, unchanged, summary(prepared.facts))


def _provenance(
    name: str, engine: str, source: Source, prepared: Prepared, content: dict[str, bytes]
) -> Provenance:
    """The statement, with the version: which weights, and a digest of everything that goes into the archive."""
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
        prepared=prepared.facts,
    )
    digests = {member: hashlib.sha256(data).hexdigest() for member, data in content.items()}
    everything = json.dumps([asdict(statement), digests], sort_keys=True).encode()
    return replace(statement, version=f"{source.kind}-{hashlib.sha256(everything).hexdigest()[:8]}")


def _handlers(layout: Layout, entry: Path) -> dict[str, bytes]:
    """The package handlers/ as it is now, and the entry (once more) at the top, where TorchServe looks for it."""
    if not entry.is_file():
        raise BadSource(f"{entry} is missing: the checkout is not whole.")
    members = {}
    for path in sorted(layout.handlers.rglob("*")):
        parts = path.relative_to(layout.root).parts
        hidden = any(part in _SKIPPED or part.startswith(".") for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            members["/".join(parts)] = path.read_bytes()
    return {entry.name: entry.read_bytes(), **members}
