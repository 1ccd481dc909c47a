"""The engine seam: what a handler knows of whatever executes its network."""

from pathlib import Path
from typing import Any, Protocol, TypeVar

from handlers.core.device import Device

PREPARED, FACTS = "prepared", "prepared.json"
"""The folder beside a model's weights with what packing has prepared for the engines; in it, what it says of it."""

REFUSED = 3
"""The exit code of preparing where the model's files are to blame; its last line is then the whole message."""

Inputs = TypeVar("Inputs", contravariant=True)
Outputs = TypeVar("Outputs", covariant=True)


class EngineUnavailable(Exception):
    """This engine cannot be had here; the message says why, and another engine takes over."""


class Engine(Protocol[Inputs, Outputs]):
    """At most five methods. `run` takes and gives a task's own plain types; all else is the engine's business."""

    name: str

    def load(self, folder: Path, device: Device) -> None:
        """Load the weights of `folder`, which is in the hub's layout, onto `device`. May raise EngineUnavailable."""

    def run(self, batch: Inputs) -> Outputs:
        """Execute one batch."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, precision where the engine decides it, and what else of it an operator wants to know."""
        ...
