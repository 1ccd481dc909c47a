"""Where the weights of one archive come from: the hub, a folder or the starters, and how `auto` chooses."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from packing import folder, lock
from packing.errors import BadRequest, BadSource
from packing.files import ModelFile
from packing.models import Layout, ModelSource, find_model, unknown_model
from packing.tasks import Task

Weights = Literal["auto", "pretrained", "starter"]
Kind = Literal["pretrained", "starter", "folder", "own"]
Report = Callable[[str], None]

STARTER_LICENCE = "apache-2.0"
"""The licence of this repository, which made the starters; their model cards may say so themselves."""


@dataclass(frozen=True)
class Source:
    """The files of a model, every digest known, and what provenance.json says about them."""

    kind: Kind
    label: str
    revision: str | None
    licence: str | None
    task: Task
    architecture: str
    files: tuple[ModelFile, ...]


@dataclass(frozen=True)
class Wish:
    """What was asked for: the options of one archive."""

    name: str
    weights: Weights
    source: str | None
    update: bool


def find(wish: Wish, layout: Layout, report: Report) -> Source:
    """The source that the wish means, its files checked and present on this machine."""
    if wish.weights not in get_args(Weights):
        raise BadRequest(f"Unknown weights {wish.weights!r}; known are {', '.join(get_args(Weights))}.")
    model = find_model(wish.name, layout)
    if wish.update and wish.weights == "starter":
        raise BadRequest(
            "--update moves the pretrained weights on; it has no meaning with --weights starter."
        )
    if wish.source is not None:
        found = _given(wish, model, layout, report)
    elif model is None:
        raise unknown_model(wish.name, layout)
    elif wish.weights == "starter" or (
        wish.weights == "auto" and not _chooses_hub(wish, model, layout, report)
    ):
        found = _starter(wish.name, layout)
    else:
        found = _pretrained(model.hub, model.licence, wish.update, layout, report)
    if model is not None and found.task != model.task:
        raise BadSource(
            f"{wish.name} is a model for {model.task.name}, but {found.label} is one for {found.task.name}. "
            "Pack it under another name."
        )
    return found


def _given(wish: Wish, model: ModelSource | None, layout: Layout, report: Report) -> Source:
    """What --from names. It is taken or fails: somebody who named a source does not want another one."""
    text = str(wish.source)
    if wish.weights == "starter":
        raise BadRequest("--from and --weights starter name two sources; leave one of them out.")
    path = Path(text).expanduser()
    if text and path.is_dir():
        if wish.update:
            raise BadRequest("--update asks the hub; a folder is always taken as it is.")
        label = os.fsencode(path.resolve().name).decode(errors="replace")
        return _from_folder("folder", path, label, f"the folder {path}", folder.licence(path))
    if text and path.exists():
        raise BadSource(f"{text} is a file; --from takes a folder in the hub's layout, or a hub id.")
    if text.startswith((".", "/", "~")) or text.endswith("/"):
        raise BadSource(f"There is no folder {text}.")
    from packing import hub

    if not hub.is_hub_id(text):
        raise BadSource(
            f"{text!r} is neither a folder that exists nor an id on the hub (such as owner/model)."
        )
    licence = model.licence if model is not None and model.hub == text else None
    report(f"{wish.name}: {text} from {hub.endpoint()}")
    return _pretrained(text, licence, wish.update, layout, report)


def _chooses_hub(wish: Wish, model: ModelSource, layout: Layout, report: Report) -> bool:
    """What `auto` takes, and says: the pretrained weights where they can be had, otherwise the starter."""
    from packing import hub, pretrained

    if wish.update:  # whoever wants the newest weights is not served by the starter
        return True
    locked = lock.read(layout.lock, model.hub)
    if locked is not None and pretrained.is_cached(model.hub, locked):
        report(f"{wish.name}: pretrained weights ({model.hub}), from the cache")
        return True
    problem = hub.probe(model.hub, (locked.revision, locked.files) if locked else None)
    if problem is None:
        report(f"{wish.name}: pretrained weights ({model.hub}), from {hub.endpoint()}")
        return True
    why = str(problem).split(". ")[0].rstrip(".")
    report(
        f"{wish.name}: WARNING: packing the small STARTER weights, not the pretrained ones of {model.hub}.\n"
        f"  Why: {why}.\n"
        "  Starters know only this repository's own drawn pictures and reports. "
        "For the real model: --weights pretrained, or --from FOLDER."
    )
    return False


def _starter(name: str, layout: Layout) -> Source:
    path = layout.starter(name)
    label = f"models/{name}/starter"
    if not path.is_dir():
        raise BadSource(f"{label} is not there: {name} has no starter weights.")
    return _from_folder("starter", path, label, label, folder.licence(path) or STARTER_LICENCE)


def _from_folder(kind: Kind, path: Path, label: str, called: str, licence: str | None) -> Source:
    task, architecture = folder.inspect(path, called)
    files = tuple(folder.collect(path, task, called))
    return Source(kind, label, None, licence, task, architecture, files)


def _pretrained(hub_id: str, licence: str | None, update: bool, layout: Layout, report: Report) -> Source:
    """The hub's files; `licence` stands in for a card that names none."""
    from packing import pretrained

    locked = None if update else lock.read(layout.lock, hub_id)
    if locked is not None:
        snapshot = pretrained.again(hub_id, locked, report)
    else:
        snapshot = pretrained.first(hub_id, report)
        lock.write(layout.lock, hub_id, snapshot.locked)
    return Source(
        kind="pretrained",
        label=hub_id,
        revision=snapshot.locked.revision,
        licence=snapshot.locked.licence or licence,
        task=snapshot.task,
        architecture=snapshot.architecture,
        files=snapshot.files,
    )
