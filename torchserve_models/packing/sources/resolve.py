"""Where the weights of one archive come from: hub, folder, starters or a state dict, and how `auto` chooses."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from torchserve_models.packing.errors import BadRequest, BadSource, HubError, HubOffline
from torchserve_models.packing.models import Layout, ModelSource, find_model, unknown_model
from torchserve_models.packing.sources import conversion, folder, lock_file
from torchserve_models.packing.sources.conversion import TORCHVISION, StateDict
from torchserve_models.packing.sources.labels import read_labels
from torchserve_models.packing.sources.model_files import CONFIG, ModelFile, is_pickle, read_json, sha256_of
from torchserve_models.packing.sources.other_formats import CHECKPOINTS, OF_CHECKPOINT
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, Task, is_timm

Weights = Literal["auto", "pretrained", "starter"]
Kind = Literal["pretrained", "starter", "folder", "state-dict", "own"]
Report = Callable[[str], None]

STARTER_LICENSE = "apache-2.0"
"""The license of this repository, which made the starters; their model cards may say so themselves."""


@dataclass(frozen=True)
class Source:
    """The files of a model, every digest known, and what provenance.json says about them."""

    kind: Kind
    label: str
    revision: str | None
    license: str | None
    task: Task
    architecture: str
    files: tuple[ModelFile, ...]


@dataclass(frozen=True)
class PackOptions:
    """The options of one archive. `labels` is a file of them for a classifier."""

    name: str
    weights: Weights
    source: str | None
    update: bool
    pickled: bool = False
    state_dict: StateDict | None = None
    labels: Path | None = None


def find(options: PackOptions, layout: Layout, report: Report, work: Path) -> Source:
    """Return the source that the options name, its files checked and present; `work` takes converted files."""
    found = _find(options, layout, report, work)
    if any(is_pickle(file.name) for file in found.files):
        report(f"{options.name}: {found.label} has pickled weights alone; safetensors are made of them")
        found = _unpickled(found, layout, work)
    if options.labels is not None:
        found = replace(found, files=_with_labels(found, options.labels, work))
    return found


def _find(options: PackOptions, layout: Layout, report: Report, work: Path) -> Source:
    if options.weights not in get_args(Weights):
        raise BadRequest(f"Unknown weights {options.weights!r}; known are {', '.join(get_args(Weights))}.")
    model = find_model(options.name, layout)
    if options.update and options.weights == "starter":
        raise BadRequest(
            "--update moves the pretrained weights on; it has no meaning with --weights starter."
        )
    if options.state_dict is not None and not (options.source or "").startswith(TORCHVISION):
        raise BadRequest("--state-dict and --transforms belong to --from torchvision:ARCHITECTURE.")
    if options.source is not None:
        found = _given(options, model, layout, report, work)
    elif model is None:
        raise unknown_model(options.name, layout)
    elif options.weights != "starter" and not layout.starter(options.name).is_dir():
        found = _only_pretrained(options, model, layout, report)
    elif options.weights == "starter" or (
        options.weights == "auto" and not _chooses_hub(options, model, layout, report)
    ):
        found = _starter(options.name, layout)
    else:
        try:
            found = _pretrained(model.hub, model.license, options, layout, report, model.pickled)
        except HubError as error:
            raise type(error)(
                f"{error} The small starter weights need no network: --weights starter."
            ) from error
    if model is not None and found.task != model.task:
        raise BadSource(
            f"{options.name} is a model for {model.task.name}, but {found.label} is one for {found.task.name}. "
            "Pack it under another name."
        )
    return found


def _given(
    options: PackOptions, model: ModelSource | None, layout: Layout, report: Report, work: Path
) -> Source:
    """What --from names. It is taken or fails: somebody who named a source does not want another one."""
    text = str(options.source)
    if options.weights == "starter":
        raise BadRequest("--from and --weights starter name two sources; leave one of them out.")
    if text.startswith(TORCHVISION):
        return _torchvision(options, text.removeprefix(TORCHVISION), layout, report, work)
    path = Path(text).expanduser()
    if text and path.is_dir():
        if options.update:
            raise BadRequest("--update asks the hub; a folder is always taken as it is.")
        label = os.fsencode(path.resolve().name).decode(errors="replace")
        license = folder.license(path)
        return _from_folder("folder", path, label, f"the folder {path}", license, options.pickled)
    if text and path.exists():
        hint = f" {OF_CHECKPOINT}" if path.name.endswith(CHECKPOINTS) else ""
        raise BadSource(f"{text} is a file; --from takes a folder in the hub's layout, or a hub id.{hint}")
    if text.startswith((".", "/", "~")) or text.endswith("/"):
        raise BadSource(f"There is no folder {text}.")
    from torchserve_models.packing.sources import hub

    if not hub.is_hub_id(text):
        raise BadSource(
            f"{text!r} is neither a folder that exists nor an id on the hub (such as owner/model)."
        )
    known = model if model is not None and model.hub == text else None
    report(f"{options.name}: {text} from {hub.endpoint()}")
    license, pickled = (known.license, known.pickled) if known else (None, False)
    try:
        return _pretrained(text, license, options, layout, report, pickled)
    except HubOffline as error:
        raise HubOffline(f"{error} Or pack a folder that has the model: --from FOLDER.") from error


def _torchvision(
    options: PackOptions, architecture: str, layout: Layout, report: Report, work: Path
) -> Source:
    given = options.state_dict
    if given is None:
        raise BadRequest(
            f"--from {TORCHVISION}{architecture} needs --state-dict FILE (its weights) and --labels FILE."
        )
    if options.update:
        raise BadRequest("--update asks the hub; a file is always taken as it is.")
    made = conversion.torchvision(architecture, given, work, layout.root)
    report(f"{options.name}: images are resized {made.transforms}")
    return Source(
        kind="state-dict",
        label=f"{TORCHVISION}{architecture}",
        revision=f"sha256:{sha256_of(given.file)}",
        license=None,
        task=IMAGE_CLASSIFICATION,
        architecture=f"{TORCHVISION}{architecture}",
        files=made.files,
    )


def _with_labels(found: Source, file: Path, work: Path) -> tuple[ModelFile, ...]:
    """The source's files with the labels of `file` in its config.json, which is written to `work`.

    Raises BadRequest for a model that has no labels, BadSource for another number of them than the model has.
    """
    if found.task != IMAGE_CLASSIFICATION:
        raise BadRequest(
            f"--labels is for image classifiers; {found.label} is a model for {found.task.name}."
        )
    labels = read_labels(file)
    config_file = next(each for each in found.files if each.name == CONFIG)
    config = read_json(config_file.path, found.label)
    own = config.get("id2label") or config.get("label_names")
    count = len(own) if isinstance(own, dict | list) else config.get("num_labels", config.get("num_classes"))
    if isinstance(count, int) and count != len(labels):
        raise BadSource(f"{file} has {len(labels)} labels, and {found.label} is for {count}.")
    for key in ("id2label", "label2id", "label_names", "num_labels"):
        config.pop(key, None)
    config |= (
        {"label_names": labels}
        if is_timm(config)
        else {"id2label": {str(index): label for index, label in enumerate(labels)}}
    )
    path = work / CONFIG
    path.write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    written = ModelFile(CONFIG, path, path.stat().st_size, sha256_of(path))
    return tuple(written if each.name == CONFIG else each for each in found.files)


def _unpickled(found: Source, layout: Layout, work: Path) -> Source:
    """With safetensors in the place of pickles."""
    stage = work / "pickled"
    stage.mkdir()
    for file in found.files:
        (stage / file.name).symlink_to(file.path.absolute())
    try:
        weights = conversion.unpickled(stage, found.task.auto_class, work / "safetensors", layout.root)
    except BadSource as error:
        raise BadSource(f"{found.label}: {error}") from error
    kept = (file for file in found.files if not is_pickle(file.name))
    return replace(found, files=tuple(sorted((*kept, weights), key=lambda file: file.name)))


def _only_pretrained(options: PackOptions, model: ModelSource, layout: Layout, report: Report) -> Source:
    """A model without a starter: from the cache or the hub, where that cannot be had, why, and a way out."""
    from torchserve_models.packing.sources import hub, pretrained

    locked = lock_file.read(layout.lock, model.hub)
    try:
        if options.weights == "auto" and (locked is None or not pretrained.is_cached(model.hub, locked)):
            problem = hub.probe(model.hub, (locked.revision, locked.files) if locked else None)
            if problem is not None:
                raise problem
        report(f"{options.name}: pretrained weights ({model.hub})")
        return _pretrained(model.hub, model.license, options, layout, report, model.pickled)
    except HubError as error:
        why = str(error).split(". ")[0].rstrip(".")
        raise type(error)(
            f"{options.name} has no starter weights, so it needs {model.hub} from the hub. {why}. Run the same "
            f"command where the hub can be reached (HF_ENDPOINT names another one), or pack a "
            f"folder that has the model: "
            f"scripts/pack {options.name} --from FOLDER."
        ) from error


def _chooses_hub(options: PackOptions, model: ModelSource, layout: Layout, report: Report) -> bool:
    """What `auto` takes, and says: the pretrained weights where they can be had, otherwise the starter."""
    from torchserve_models.packing.sources import hub, pretrained

    if options.update:  # whoever wants the newest weights is not served by the starter
        return True
    locked = lock_file.read(layout.lock, model.hub)
    if locked is not None and pretrained.is_cached(model.hub, locked):
        report(f"{options.name}: pretrained weights ({model.hub}), from the cache")
        return True
    problem = hub.probe(model.hub, (locked.revision, locked.files) if locked else None)
    if problem is None:
        report(f"{options.name}: pretrained weights ({model.hub}), from {hub.endpoint()}")
        return True
    why = str(problem).split(". ")[0].rstrip(".")
    report(
        f"{options.name}: WARNING: packing the small STARTER weights, not the pretrained ones of {model.hub}.\n"
        f"  Why: {why}.\n"
        "  Starters know only this repository's own drawn images and reports. "
        "For the real model: --weights pretrained, or --from FOLDER."
    )
    return False


def _starter(name: str, layout: Layout) -> Source:
    path = layout.starter(name)
    label = f"models/{name}/starter"
    if not path.is_dir():
        raise BadSource(f"{label} is not there: {name} has no starter weights.")
    return _from_folder("starter", path, label, label, folder.license(path) or STARTER_LICENSE)


def _from_folder(
    kind: Kind, path: Path, label: str, called: str, license: str | None, pickled: bool = False
) -> Source:
    task, architecture = folder.inspect(path, called)
    files = tuple(folder.collect(path, task, called, pickled))
    return Source(kind, label, None, license, task, architecture, files)


def _pretrained(
    hub_id: str, license: str | None, options: PackOptions, layout: Layout, report: Report, pickled: bool
) -> Source:
    """The hub's files; `license` stands in for a card that names none."""
    from torchserve_models.packing.sources import pretrained

    locked = None if options.update else lock_file.read(layout.lock, hub_id)
    if locked is not None:
        snapshot = pretrained.again(hub_id, locked, report, pickled or options.pickled)
    else:
        snapshot = pretrained.first(hub_id, report, pickled or options.pickled)
        lock_file.write(layout.lock, hub_id, snapshot.locked)
    return Source(
        kind="pretrained",
        label=hub_id,
        revision=snapshot.locked.revision,
        license=snapshot.locked.license or license,
        task=snapshot.task,
        architecture=snapshot.architecture,
        files=snapshot.files,
    )
