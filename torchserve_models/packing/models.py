"""The models of this repository: folder layout and models/NAME/source.yaml."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from torchserve_models.packing.errors import InvalidSource, UnknownModel
from torchserve_models.packing.tasks import TASKS, TaskSpec
from torchserve_models.paths import ROOT, WRITABLE_ROOT


@dataclass(frozen=True)
class RepositoryLayout:
    """The folders and files of the repository that packing reads and writes."""

    root: Path
    writable_root: Path | None = None
    """The parent of `model_store/` and the lock file if `root` is read-only."""

    @property
    def handlers(self) -> Path:
        return self.root / "handlers"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def store(self) -> Path:
        return (self.writable_root or self.root) / "model_store"

    @property
    def prepared(self) -> Path:
        """Cache of prepared engine files, which all stores share."""
        return self.store / ".prepared"

    @property
    def lock(self) -> Path:
        return (self.store if self.writable_root else self.models) / "lock.json"

    def starter(self, name: str) -> Path:
        return self.models / name / "starter"


LAYOUT = RepositoryLayout(ROOT, None if WRITABLE_ROOT == ROOT else WRITABLE_ROOT)


@dataclass(frozen=True)
class ModelSource:
    """The content of models/NAME/source.yaml: task and origin of a model.

    Attributes:
        task: Task of the model.
        hub: Repository of the pretrained weights on the Hugging Face hub.
        license: License of the pretrained weights; starter weights have the license of this repository.
        pickled: Whether pytorch_model.bin may be packed if the repository has no safetensors.
    """

    task: TaskSpec
    hub: str
    license: str
    pickled: bool = False

    @classmethod
    def read(cls, path: Path) -> "ModelSource":
        """Read a source.yaml. Raises InvalidSource if it is invalid, or a key is unknown or missing."""
        raw = read_yaml(path)
        known = [field.name for field in fields(cls)]
        for key in raw:
            if key not in known:
                raise InvalidSource(f"{path}: unknown key {key!r}; allowed: {', '.join(known)}.")
        for key in known[:3]:
            if not isinstance(raw.get(key), str):
                raise InvalidSource(f"{path}: {key!r} must be set to a string.")
        if not isinstance(pickled := raw.get("pickled", False), bool):
            raise InvalidSource(f"{path}: 'pickled' must be true or false.")
        if raw["task"] not in TASKS:
            raise InvalidSource(f"{path}: unknown task {raw['task']!r}; allowed: {', '.join(TASKS)}.")
        return cls(task=TASKS[raw["task"]], hub=raw["hub"], license=raw["license"], pickled=pickled)


def known_models(layout: RepositoryLayout = LAYOUT) -> list[str]:
    """Return the names of the models in models/, sorted."""
    return sorted(path.parent.name for path in layout.models.glob("*/source.yaml"))


def default_models(layout: RepositoryLayout = LAYOUT) -> list[str]:
    """Return the models with starter weights, which are packed by default because they need no network."""
    return [name for name in known_models(layout) if layout.starter(name).is_dir()]


def find_model(name: str, layout: RepositoryLayout) -> ModelSource | None:
    """Return the content of models/NAME/source.yaml, or None if there is no such file."""
    path = layout.models / name / "source.yaml"
    return ModelSource.read(path) if path.is_file() else None


def unknown_model(name: str, layout: RepositoryLayout) -> UnknownModel:
    """Return the error for a name that is not in models/."""
    return UnknownModel(
        f"There is no model {name!r} in models/. Known: {', '.join(known_models(layout)) or 'none'}. "
        "Any other name needs --from SOURCE."
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises InvalidSource if the file is missing, invalid or not a mapping."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSource(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InvalidSource(f"{path} must be a YAML mapping.")
    return raw
