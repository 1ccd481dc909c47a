"""The engine seam: what a handler knows of whatever executes its network."""

from pathlib import Path
from typing import Any, Protocol, TypeVar

from handlers.core.device import Device

Inputs = TypeVar("Inputs", contravariant=True)
Outputs = TypeVar("Outputs", covariant=True)


class Engine(Protocol[Inputs, Outputs]):
    """At most five methods. `run` takes and gives a task's own plain types; all else is the engine's business."""

    name: str

    def load(self, folder: Path, device: Device) -> None:
        """Load the weights of `folder`, which is in the hub's layout, onto `device`."""

    def run(self, batch: Inputs) -> Outputs:
        """Execute one batch."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, and why it was chosen, for the describe API."""
        ...
