"""Which models the server has, what each is for, and what a request to it may set."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from torchserve_models.client import Client, TorchServeError

IMAGES, TEXTS = "image-classification", "summarization"
# A handler's words for a range, where it gives no numbers: "an integer from 1 to 256".
_RANGE = re.compile(r"from (-?\d+) to (-?\d+)")
# For a handler that says less about itself; the server refuses what it does not allow.
_LIMITS = {"max_new_tokens": (1, 256), "min_new_tokens": (0, 256), "num_beams": (1, 8)}
_DEFAULTS = {"max_new_tokens": 60, "min_new_tokens": 0, "num_beams": 1}


@dataclass(frozen=True)
class Entry:
    """A model's default version. `metadata` is what its handler says about itself, empty where none answers."""

    name: str
    version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str | None:
        return self.metadata.get("task")

    def limits(self, parameter: str) -> tuple[int, int]:
        """The lowest and the highest value that a request may set."""
        said = self._said(parameter)
        if {"minimum", "maximum"} <= said.keys():
            return int(said["minimum"]), int(said["maximum"])
        found = _RANGE.search(str(said.get("expected", "")))
        return (int(found[1]), int(found[2])) if found else _LIMITS[parameter]

    def default(self, parameter: str) -> int:
        """The model's default, or a plausible value where the handler names none."""
        known = self._default(parameter)
        low, high = self.limits(parameter)
        return max(low, min(high, _DEFAULTS[parameter] if known is None else known))

    def changed(self, parameters: Mapping[str, int]) -> dict[str, int]:
        """The parameters that differ from the model's defaults; others are not sent, as one may rule another out."""
        return {name: value for name, value in parameters.items() if value != self._default(name)}

    def _default(self, parameter: str) -> int | None:
        found = self._said(parameter).get("default", self.metadata.get("defaults", {}).get(parameter))
        return None if found is None else int(found)

    def _said(self, parameter: str) -> Mapping[str, Any]:
        """The metadata of one parameter. Older handlers have a mapping from names to descriptions."""
        every = self.metadata.get("parameters", [])
        if isinstance(every, Mapping):
            return {"expected": every.get(parameter, "")}
        return next((each for each in every if each.get("name") == parameter), {})


class Catalog:
    """Asks the server at each call, but for each version's metadata only once, as a worker has to answer that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Entry] = {}
        self._lock = Lock()

    def entries(self) -> list[Entry]:
        """Every model, by name. Raises TorchServeError."""
        return [self.entry(listed.name) for listed in sorted(self._client.list_models(), key=_name)]

    def entry(self, name: str) -> Entry:
        """Raises TorchServeError, ModelNotFound among them."""
        version = self._client.describe(name).version
        with self._lock:
            known = self._known.get((name, version))
        if known:
            return known
        try:
            metadata = self._client.describe(name, version, customized=True).metadata or {}
        except TorchServeError:  # no worker that could answer: a model scaled to none, or one that is loading
            return Entry(name, version)
        entry = Entry(name, version, metadata)
        with self._lock:
            if metadata:
                self._known[name, version] = entry
        return entry

    def names(self, task: str) -> list[str]:
        """The models of a task. Raises TorchServeError."""
        return of_task(self.entries(), task)


def of_task(entries: Sequence[Entry], task: str) -> list[str]:
    return [entry.name for entry in entries if entry.task == task]


def _name(listed: Any) -> str:
    return str(listed.name)
