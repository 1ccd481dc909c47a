"""Plain data that crosses the door: payloads in, tensors out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Payload = bytes | str | np.ndarray
"""bytes: as sent; str: from JSON; array: a numeric Open Inference tensor, in its shape and type."""


@dataclass(frozen=True)
class Tensor:
    """An Open Inference Protocol tensor; `data` is flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape), "data": self.data}
