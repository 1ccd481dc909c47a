"""Models of the server, their tasks, and the parameters that a request may set."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from torchserve_models.client import Client, TorchServeError

IMAGES, TEXTS = "image-classification", "summarization"
# The range in a parameter's description, such as "an integer from 1 to 256".
_RANGE = re.compile(r"from (-?\d+) to (-?\d+)")
# For handlers that do not describe their limits. The server rejects values that it does not allow.
_LIMITS = {"max_new_tokens": (1, 256), "min_new_tokens": (0, 256), "num_beams": (1, 8)}
_DEFAULTS = {"max_new_tokens": 60, "min_new_tokens": 0, "num_beams": 1}


@dataclass(frozen=True)
class CatalogEntry:
    """A version of a model. `metadata` comes from its handler and is empty if no worker responds."""

    name: str
    version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str | None:
        return self.metadata.get("task")

    def limits(self, parameter: str) -> tuple[int, int]:
        """Return the smallest and the largest value of a parameter."""
        metadata = self._parameter_metadata(parameter)
        if {"minimum", "maximum"} <= metadata.keys():
            return int(metadata["minimum"]), int(metadata["maximum"])
        match = _RANGE.search(str(metadata.get("expected", "")))
        return (int(match[1]), int(match[2])) if match else _LIMITS[parameter]

    def default(self, parameter: str) -> int:
        """Return the model's default for a parameter, or a common value if the handler does not describe one."""
        default = self._default(parameter)
        low, high = self.limits(parameter)
        return max(low, min(high, _DEFAULTS[parameter] if default is None else default))

    def drop_defaults(self, parameters: Mapping[str, int]) -> dict[str, int]:
        """Return the parameters that differ from the defaults, which could conflict with other parameters."""
        return {name: value for name, value in parameters.items() if value != self._default(name)}

    def _default(self, parameter: str) -> int | None:
        defaults = self.metadata.get("defaults", {})
        default = self._parameter_metadata(parameter).get("default", defaults.get(parameter))
        return None if default is None else int(default)

    def _parameter_metadata(self, parameter: str) -> Mapping[str, Any]:
        """Return the metadata of a parameter. Handlers may also map names to descriptions."""
        parameters = self.metadata.get("parameters", [])
        if isinstance(parameters, Mapping):
            return {"expected": parameters.get(parameter, "")}
        return next((entry for entry in parameters if entry.get("name") == parameter), {})


class Catalog:
    """Models of a server. Calls query the server, but fetch the metadata of a version only once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._entries: dict[tuple[str, str], CatalogEntry] = {}
        self._lock = Lock()

    def entries(self) -> list[CatalogEntry]:
        """Return all models, sorted by name. Raises TorchServeError."""
        return [self.entry(listed.name) for listed in sorted(self._client.list_models(), key=_name)]

    def entry(self, name: str) -> CatalogEntry:
        """Return a model's default version. Raises TorchServeError, such as ModelNotFound."""
        version = self._client.describe(name).version
        with self._lock:
            cached_entry = self._entries.get((name, version))
        if cached_entry:
            return cached_entry
        try:
            metadata = self._client.describe(name, version, customized=True).metadata or {}
        except TorchServeError:  # no worker is ready: the model is scaled to 0 or still loading
            return CatalogEntry(name, version)
        entry = CatalogEntry(name, version, metadata)
        with self._lock:
            if metadata:
                self._entries[name, version] = entry
        return entry

    def names(self, task: str) -> list[str]:
        """Return the names of a task's models. Raises TorchServeError."""
        return select_by_task(self.entries(), task)


def select_by_task(entries: Sequence[CatalogEntry], task: str) -> list[str]:
    return [entry.name for entry in entries if entry.task == task]


def _name(listed: Any) -> str:
    return str(listed.name)
