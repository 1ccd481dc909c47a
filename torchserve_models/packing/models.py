"""The models of this repository: models/<name>/source.yaml, typed, and where everything lies."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from torchserve_models.packing.errors import BadSource, UnknownModel
from torchserve_models.packing.tasks import TASKS, Task
from torchserve_models.paths import ROOT, WRITABLE_ROOT


@dataclass(frozen=True)
class Layout:
    """Where the repository keeps what packing reads and writes."""

    root: Path
    writable_root: Path | None = None
    """The directory of `model_store/` and the lock, where `root` is read-only."""

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
        """The cache of what preparing makes; one for all stores, as it depends on none."""
        return self.store / ".prepared"

    @property
    def lock(self) -> Path:
        return (self.store if self.writable_root else self.models) / "lock.json"

    def starter(self, name: str) -> Path:
        return self.models / name / "starter"


LAYOUT = Layout(ROOT, None if WRITABLE_ROOT == ROOT else WRITABLE_ROOT)


@dataclass(frozen=True)
class ModelSource:
    """models/<name>/source.yaml: where the weights of a model of this repository come from.

    `hub` is the repository of the pretrained weights on the Hugging Face hub and `license` theirs, as its card says;
    the starter weights carry this repository's own license. `pickled`: packing may take its pytorch_model.bin
    where it has no safetensors.
    """

    task: Task
    hub: str
    license: str
    pickled: bool = False

    @classmethod
    def read(cls, path: Path) -> "ModelSource":
        """Raises BadSource for a file that is not one, an unknown key or a missing one."""
        raw = read_yaml(path)
        known = [field.name for field in fields(cls)]
        for key in raw:
            if key not in known:
                raise BadSource(f"{path}: unknown key {key!r}; known are {', '.join(known)}.")
        for key in known[:3]:
            if not isinstance(raw.get(key), str):
                raise BadSource(f"{path}: {key!r} has to be there and be text.")
        if not isinstance(pickled := raw.get("pickled", False), bool):
            raise BadSource(f"{path}: 'pickled' has to be true or false.")
        if raw["task"] not in TASKS:
            raise BadSource(f"{path}: unknown task {raw['task']!r}; known are {', '.join(TASKS)}.")
        return cls(task=TASKS[raw["task"]], hub=raw["hub"], license=raw["license"], pickled=pickled)


def known_models(layout: Layout = LAYOUT) -> list[str]:
    """The names that can be packed without saying from where, sorted."""
    return sorted(path.parent.name for path in layout.models.glob("*/source.yaml"))


def default_models(layout: Layout = LAYOUT) -> list[str]:
    """Those of them that are packed and served where none is named: they have a starter, so that it always works."""
    return [name for name in known_models(layout) if layout.starter(name).is_dir()]


def find_model(name: str, layout: Layout) -> ModelSource | None:
    """What models/<name> says, or None where there is no such model."""
    path = layout.models / name / "source.yaml"
    return ModelSource.read(path) if path.is_file() else None


def unknown_model(name: str, layout: Layout) -> UnknownModel:
    return UnknownModel(
        f"There is no model {name!r} in models/. Known: {', '.join(known_models(layout)) or 'none'}. "
        "Any other name needs --from SOURCE."
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; BadSource where the file is missing, broken or something else."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSource(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise BadSource(f"{path} has to be a mapping of keys to values.")
    return raw
