"""Sees to it that the store holds the archives to be served: packs what is missing, other than asked for, or old."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from packing import PackingError, known_models, pack, read_provenance
from packing.models import LAYOUT, find_model
from packing.sources import Weights
from serving.errors import RunError

Report = Callable[[str], None]


def prepare(names: Sequence[str], weights: Weights, store: Path, report: Report) -> list[str]:
    """The names to serve, all of ours when none is given, each with its archive in `store`.

    Packing leaves an archive that is already right as it is. One that was packed from somebody's own folder or hub
    repository is taken as it is unless the weights are named: packing again would put others in its place.
    Raises RunError.
    """
    chosen = list(dict.fromkeys(names)) or known_models()
    for name in chosen:
        if weights == "auto" and _is_own(name, store / f"{name}.mar"):
            _check_whole(store / f"{name}.mar")
            report(f"{name}: the archive in {store}, as it is")
            continue
        try:
            packed = pack(name, weights=weights, store=store, report=report)
        except PackingError as error:
            raise RunError(f"{name} cannot be packed: {error}") from error
        report(f"{name}: {'unchanged' if packed.unchanged else 'packed'}, version {packed.version}")
    return chosen


def as_packed(names: Sequence[str], store: Path) -> list[str]:
    """The names to serve, every archive of `store` when none is given; nothing is packed. Raises RunError."""
    chosen = list(dict.fromkeys(names)) or sorted(path.stem for path in store.glob("*.mar"))
    if not chosen:
        raise RunError(f"there is no archive in {store}; make some with scripts/pack")
    for name in chosen:
        _check_whole(store / f"{name}.mar")
    return chosen


def _is_own(name: str, archive: Path) -> bool:
    """Whether there is an archive that did not come from the sources of models/."""
    try:
        made = read_provenance(archive)
    except PackingError:
        return archive.exists() and name not in known_models()
    model = find_model(name, LAYOUT)
    return made.weights == "folder" or (
        made.weights == "pretrained" and (model is None or made.source != model.hub)
    )


def _check_whole(archive: Path) -> None:
    """TorchServe takes any file for an archive, and its worker then dies of something unrelated."""
    try:
        with zipfile.ZipFile(archive) as content:
            content.getinfo("MAR-INF/MANIFEST.json")
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise RunError(
            f"{archive} is not a model archive ({error}); pack it again with scripts/pack"
        ) from error
