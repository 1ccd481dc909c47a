"""Pack archives that are missing from the store, outdated, or have other weights than requested."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torchserve_models.packing import (
    PackedArchive,
    PackingError,
    PackRequest,
    default_models,
    known_models,
    pack,
    read_provenance,
)
from torchserve_models.packing.archive.earlier_versions import is_earlier
from torchserve_models.packing.errors import HubError
from torchserve_models.packing.models import LAYOUT, find_model
from torchserve_models.packing.request import Weights
from torchserve_models.serving.errors import RunError

LogFunction = Callable[[str], None]


def prepare_archives(names: Sequence[str], weights: Weights, store: Path, report: LogFunction) -> list[str]:
    """Pack the missing and outdated archives; return the names of the models to serve.

    By default, these are all models with starter weights. The following archives stay unchanged: archives that are
    up to date; archives packed from a user's folder or hub repository, unless models/ has a model of that name and
    `weights` is not "auto"; and archives of pretrained weights while the hub is unreachable.

    Raises:
        RunError: An archive cannot be packed, or a file in the store is not a model archive.
    """
    model_names = list(dict.fromkeys(names)) or default_models()
    for name in model_names:
        archive = store / f"{name}.mar"
        if _is_user_archive(name, archive) and (weights == "auto" or name not in known_models()):
            _check_is_archive(archive)
            ignored = "" if weights == "auto" else f"; --weights {weights} is for models of models/"
            report(f"{name}: using the archive in {store} unchanged{ignored}")
            continue
        try:
            if weights == "auto" and (hub_id := _hub_id(name, archive)):
                packed = _repack(name, hub_id, store, report)
            else:
                packed = pack(PackRequest(name, weights, store=store), report)
        except PackingError as error:
            raise RunError(f"{name} cannot be packed: {error}") from error
        if packed is None:
            continue
        report(f"{name}: {'unchanged' if packed.unchanged else 'packed'}, version {packed.version}")
    return model_names


def find_archives(names: Sequence[str], store: Path) -> list[str]:
    """Return the names to serve without packing, by default every archive in `store`.

    Raises:
        RunError: The store has no archives, or a file is not a model archive.
    """
    model_names = list(dict.fromkeys(names)) or sorted(
        path.stem
        for path in store.glob("*.mar")
        if not path.name.startswith(".")  # temporary links during a restart of the front end
        and not is_earlier(path)
    )
    if not model_names:
        raise RunError(f"{store} contains no model archives; create them with scripts/pack")
    for name in model_names:
        _check_is_archive(store / f"{name}.mar")
    return model_names


def _hub_id(name: str, archive: Path) -> str | None:
    """Return the hub repository named in models/ if the archive was packed from it."""
    model = find_model(name, LAYOUT)
    try:
        provenance = read_provenance(archive)
    except PackingError:
        return None
    return (
        model.hub if model and (provenance.weights, provenance.source) == ("pretrained", model.hub) else None
    )


def _repack(name: str, hub_id: str, store: Path, report: LogFunction) -> PackedArchive | None:
    """Repack the pretrained weights; return None and keep the archive if the hub is unreachable."""
    from torchserve_models.packing.sources import hub, lock_file, pretrained

    try:
        lock_entry = lock_file.read(LAYOUT.lock, hub_id)
        if lock_entry is None or not pretrained.is_cached(hub_id, lock_entry):
            problem = hub.check_available(
                hub_id, (lock_entry.revision, lock_entry.files) if lock_entry else None
            )
            if problem is not None:
                raise problem
        return pack(PackRequest(name, "pretrained", store=store), report)
    except HubError as error:
        report(
            f"{name}: WARNING: using the pretrained archive in {store} unchanged. Packing it again failed: "
            f"{str(error).split('. ')[0]}."
        )
        return None


def _is_user_archive(name: str, archive: Path) -> bool:
    """Return whether the archive exists and was not packed from the sources in models/."""
    try:
        provenance = read_provenance(archive)
    except PackingError:
        return archive.exists() and name not in known_models()
    model = find_model(name, LAYOUT)
    return provenance.weights in ("folder", "state-dict", "own") or (
        provenance.weights == "pretrained" and (model is None or provenance.source != model.hub)
    )


def _check_is_archive(archive: Path) -> None:
    """Raise RunError unless the file is an archive; TorchServe's workers would fail with an unrelated error."""
    try:
        with zipfile.ZipFile(archive) as content:
            content.getinfo("MAR-INF/MANIFEST.json")
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise RunError(
            f"{archive} is not a model archive ({error}); pack it again with scripts/pack"
        ) from error
