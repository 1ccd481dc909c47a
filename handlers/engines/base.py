"""The interface between a handler and the engine that executes its network."""

from pathlib import Path
from typing import Any, Protocol, TypeVar

from handlers.core.device import Device

PREPARED_DIR, FACTS_FILE = "prepared", "prepared.json"
"""The folder of the files that packing prepares, next to a model's weights, and the file in it that describes them.
"""

Inputs = TypeVar("Inputs", contravariant=True)
Outputs = TypeVar("Outputs", covariant=True)


class EngineUnavailable(Exception):
    """Raised if an engine cannot be used on this machine or for this model. Operators see its message."""


def summarize(error: Exception) -> str:
    """Return a short reason for operators: the type and message, or only the message of `EngineUnavailable`."""
    return str(error) if isinstance(error, EngineUnavailable) else f"{type(error).__name__}: {error}"[:200]


class Engine(Protocol[Inputs, Outputs]):
    """The interface of an engine, which executes batches of one network.

    `run` takes and returns plain types of the task, so that a handler does not depend on the engine's library.
    """

    name: str

    def load(self, folder: Path, device: Device) -> None:
        """Load the weights of a folder in the hub's layout onto `device`.

        Raises:
            EngineUnavailable: The engine cannot be used on this machine or for this model.
        """

    def run(self, batch: Inputs) -> Outputs:
        """Execute one batch."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the engine's name, its precision if the engine selects it, and other information for operators."""
        ...
