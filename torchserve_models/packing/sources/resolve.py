"""Selection of the source of an archive: hub, folder, starter weights or state dict."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from torchserve_models.packing.errors import HubError, HubOffline, InvalidOptions, InvalidSource
from torchserve_models.packing.models import ModelSource, RepositoryLayout, find_model, unknown_model
from torchserve_models.packing.request import TORCHVISION, PackRequest, Report, Weights
from torchserve_models.packing.sources import folder, lock_file, run_conversion
from torchserve_models.packing.sources.labels import read_labels
from torchserve_models.packing.sources.model_files import CONFIG, ModelFile, is_pickle, read_json, sha256_of
from torchserve_models.packing.sources.other_formats import CHECKPOINT_HINT, CHECKPOINTS
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, TaskSpec, is_timm

Kind = Literal["pretrained", "starter", "folder", "state-dict", "own"]

STARTER_LICENSE = "apache-2.0"
"""License of starter weights whose model card names none."""


@dataclass(frozen=True)
class WeightSource:
    """The files of a model and their origin.

    Attributes:
        kind: Kind of source.
        label: Name of the source, such as a hub id.
        revision: Commit of the hub, or digest of the state dict.
        license: License of the weights, if known.
        task: Task of the model.
        architecture: Class name of the network.
        files: The files with their digests.
    """

    kind: Kind
    label: str
    revision: str | None
    license: str | None
    task: TaskSpec
    architecture: str
    files: tuple[ModelFile, ...]


def resolve_source(
    request: PackRequest, layout: RepositoryLayout, report: Report, work: Path
) -> WeightSource:
    """Return the requested source with its files present and checked; converted files are written to `work`."""
    source = _resolve(request, layout, report, work)
    if any(is_pickle(file.name) for file in source.files):
        report(f"{request.name}: {source.label} has only pickled weights; converting them to safetensors")
        source = _convert_pickle(source, layout, work)
    if request.labels is not None:
        source = replace(source, files=_replace_labels(source, request.labels, work))
    return source


def _resolve(request: PackRequest, layout: RepositoryLayout, report: Report, work: Path) -> WeightSource:
    """Return the requested source, without the conversion of pickles and the replacement of labels."""
    if request.weights not in get_args(Weights):
        raise InvalidOptions(f"Unknown weights {request.weights!r}; allowed: {', '.join(get_args(Weights))}.")
    model = find_model(request.name, layout)
    if request.update and request.weights == "starter":
        raise InvalidOptions(
            "--update applies to pretrained weights and cannot be combined with --weights starter."
        )
    if request.state_dict is not None and not str(request.source or "").startswith(TORCHVISION):
        raise InvalidOptions("--state-dict and --transforms require --from torchvision:ARCHITECTURE.")
    if request.source is not None:
        source = _resolve_named_source(request, model, layout, report, work)
    elif model is None:
        raise unknown_model(request.name, layout)
    elif request.weights != "starter" and not layout.starter(request.name).is_dir():
        source = _resolve_hub_only_model(request, model, layout, report)
    elif request.weights == "starter" or (
        request.weights == "auto" and not _chooses_hub(request, model, layout, report)
    ):
        source = _resolve_starter(request.name, layout)
    else:
        try:
            source = _resolve_pretrained(model.hub, model.license, request, layout, report, model.pickled)
        except HubError as error:
            raise type(error)(
                f"{error} To pack the small starter weights without a network, use --weights starter."
            ) from error
    if model is not None and source.task != model.task:
        raise InvalidSource(
            f"The task of {request.name} is {model.task.name}, but the task of {source.label} is "
            f"{source.task.name}. Pack {source.label} under another name."
        )
    return source


def _resolve_named_source(
    request: PackRequest, model: ModelSource | None, layout: RepositoryLayout, report: Report, work: Path
) -> WeightSource:
    """Return the source given by --from, without falling back to another source."""
    text = str(request.source)
    if request.weights == "starter":
        raise InvalidOptions("--from and --weights starter cannot be combined. Omit one of them.")
    if text.startswith(TORCHVISION):
        return _resolve_torchvision(request, text.removeprefix(TORCHVISION), layout, report, work)
    path = Path(text).expanduser()
    if text and path.is_dir():
        if request.update:
            raise InvalidOptions("--update applies only to hub repositories, not to folders. Omit --update.")
        label = os.fsencode(path.resolve().name).decode(errors="replace")
        license = folder.license(path)
        return _resolve_folder("folder", path, label, f"the folder {path}", license, request.pickled)
    if text and path.exists():
        hint = f" {CHECKPOINT_HINT}" if path.name.endswith(CHECKPOINTS) else ""
        raise InvalidSource(
            f"{text} is a file. Pass a Hugging Face model folder or a hub id to --from.{hint}"
        )
    if text.startswith((".", "/", "~")) or text.endswith("/"):
        raise InvalidSource(f"Folder {text} does not exist. Pass an existing folder or a hub id to --from.")
    from torchserve_models.packing.sources import hub

    if not hub.is_hub_id(text):
        raise InvalidSource(
            f"{text!r} is neither an existing folder nor a valid hub id (such as owner/model)."
        )
    known = model if model is not None and model.hub == text else None
    report(f"{request.name}: {text} from {hub.endpoint()}")
    license, pickled = (known.license, known.pickled) if known else (None, False)
    try:
        return _resolve_pretrained(text, license, request, layout, report, pickled)
    except HubOffline as error:
        raise HubOffline(f"{error} Or pack a local folder with the model: --from FOLDER.") from error


def _resolve_torchvision(
    request: PackRequest, architecture: str, layout: RepositoryLayout, report: Report, work: Path
) -> WeightSource:
    state_dict = request.state_dict
    if state_dict is None:
        raise InvalidOptions(
            f"--from {TORCHVISION}{architecture} requires --state-dict FILE and --labels FILE."
        )
    if request.update:
        raise InvalidOptions("--update applies only to hub repositories, not to files. Omit --update.")
    converted = run_conversion.convert_torchvision(architecture, state_dict, work, layout.root)
    report(f"{request.name}: images are resized {converted.transforms}")
    return WeightSource(
        kind="state-dict",
        label=f"{TORCHVISION}{architecture}",
        revision=f"sha256:{sha256_of(state_dict.file)}",
        license=None,
        task=IMAGE_CLASSIFICATION,
        architecture=f"{TORCHVISION}{architecture}",
        files=converted.files,
    )


def _replace_labels(source: WeightSource, file: Path, work: Path) -> tuple[ModelFile, ...]:
    """Return the files of the source with labels replaced in config.json, which is written to `work`.

    Raises:
        InvalidOptions: The model is not an image classifier.
        InvalidSource: The number of labels differs from the model's.
    """
    if source.task != IMAGE_CLASSIFICATION:
        raise InvalidOptions(
            f"--labels is only for image classifiers, but the task of {source.label} is {source.task.name}."
        )
    labels = read_labels(file)
    config_file = next(model_file for model_file in source.files if model_file.name == CONFIG)
    config = read_json(config_file.path, source.label)
    model_labels = config.get("id2label") or config.get("label_names")
    count = (
        len(model_labels)
        if isinstance(model_labels, dict | list)
        else config.get("num_labels", config.get("num_classes"))
    )
    if isinstance(count, int) and count != len(labels):
        raise InvalidSource(
            f"{file} has {len(labels)} labels, but {source.label} has {count} classes. Pass one label per class."
        )
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
    return tuple(written if model_file.name == CONFIG else model_file for model_file in source.files)


def _convert_pickle(source: WeightSource, layout: RepositoryLayout, work: Path) -> WeightSource:
    """Return the source with safetensors instead of pickles."""
    stage = work / "pickled"
    stage.mkdir()
    for file in source.files:
        (stage / file.name).symlink_to(file.path.absolute())
    try:
        weights = run_conversion.convert_pickle(
            stage, source.task.auto_class, work / "safetensors", layout.root
        )
    except InvalidSource as error:
        raise InvalidSource(f"{source.label}: {error}") from error
    other_files = (file for file in source.files if not is_pickle(file.name))
    return replace(source, files=tuple(sorted((*other_files, weights), key=lambda file: file.name)))


def _resolve_hub_only_model(
    request: PackRequest, model: ModelSource, layout: RepositoryLayout, report: Report
) -> WeightSource:
    """Return the pretrained weights of a model without starter weights, or raise an error with alternatives."""
    from torchserve_models.packing.sources import hub, pretrained

    locked = lock_file.read(layout.lock, model.hub)
    try:
        if request.weights == "auto" and (locked is None or not pretrained.is_cached(model.hub, locked)):
            problem = hub.check_available(model.hub, (locked.revision, locked.files) if locked else None)
            if problem is not None:
                raise problem
        report(f"{request.name}: pretrained weights ({model.hub})")
        return _resolve_pretrained(model.hub, model.license, request, layout, report, model.pickled)
    except HubError as error:
        why = str(error).split(". ")[0].rstrip(".")
        raise type(error)(
            f"{request.name} has no starter weights and requires {model.hub} from the hub. {why}. Run the same "
            f"command where the hub is reachable (set HF_ENDPOINT for a mirror), or pack a local folder with the "
            f"model: scripts/pack {request.name} --from FOLDER."
        ) from error


def _chooses_hub(request: PackRequest, model: ModelSource, layout: RepositoryLayout, report: Report) -> bool:
    """Return whether `--weights auto` selects the pretrained weights, and report the choice."""
    from torchserve_models.packing.sources import hub, pretrained

    if request.update:  # --update requires the newest weights, so do not fall back to the starter
        return True
    locked = lock_file.read(layout.lock, model.hub)
    if locked is not None and pretrained.is_cached(model.hub, locked):
        report(f"{request.name}: pretrained weights ({model.hub}), from the cache")
        return True
    problem = hub.check_available(model.hub, (locked.revision, locked.files) if locked else None)
    if problem is None:
        report(f"{request.name}: pretrained weights ({model.hub}), from {hub.endpoint()}")
        return True
    why = str(problem).split(". ")[0].rstrip(".")
    report(
        f"{request.name}: WARNING: packing the small STARTER weights, not the pretrained ones of {model.hub}.\n"
        f"  Reason: {why}.\n"
        "  Starter weights only work on the drawn images and generated reports of this repository. "
        "For the real model, use --weights pretrained or --from FOLDER."
    )
    return False


def _resolve_starter(name: str, layout: RepositoryLayout) -> WeightSource:
    path = layout.starter(name)
    label = f"models/{name}/starter"
    if not path.is_dir():
        raise InvalidSource(f"{name} has no starter weights ({label} is missing). Use --weights pretrained.")
    return _resolve_folder("starter", path, label, label, folder.license(path) or STARTER_LICENSE)


def _resolve_folder(
    kind: Kind, path: Path, label: str, display_name: str, license: str | None, pickled: bool = False
) -> WeightSource:
    task, architecture = folder.inspect(path, display_name)
    files = tuple(folder.collect(path, task, display_name, pickled))
    return WeightSource(kind, label, None, license, task, architecture, files)


def _resolve_pretrained(
    hub_id: str,
    license: str | None,
    request: PackRequest,
    layout: RepositoryLayout,
    report: Report,
    pickled: bool,
) -> WeightSource:
    """Return a hub repository as the source; `license` is used if its model card names none."""
    from torchserve_models.packing.sources import pretrained

    locked = None if request.update else lock_file.read(layout.lock, hub_id)
    if locked is not None:
        snapshot = pretrained.download_locked(hub_id, locked, report, pickled or request.pickled)
    else:
        snapshot = pretrained.download_latest(hub_id, report, pickled or request.pickled)
        lock_file.write(layout.lock, hub_id, snapshot.locked)
    return WeightSource(
        kind="pretrained",
        label=hub_id,
        revision=snapshot.locked.revision,
        license=snapshot.locked.license or license,
        task=snapshot.task,
        architecture=snapshot.architecture,
        files=snapshot.files,
    )
