"""The engine `torch-compiled` for image classification: compiled at packing for a CPU, at load for a GPU."""

import json
import re
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device, cpu_flags
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.image.torch_classifier import TorchClassifier
from handlers.engines.image.types import InputSpec

PACKAGE, REQUIREMENTS = "torch-compiled.pt2", "torch-compiled.json"
"""The compiled network and its requirements, in the folder of prepared files."""

MAX_BATCH = 256
"""The largest batch that a package is compiled for."""

_INSTRUCTION_SET_FLAG = re.compile(
    r"avx|amx|sse|fma|f16c|bmi|adx|abm|popcnt|movbe|aes|pclmul|gfni|sha_ni|vaes|vpclmul"
)
"""The flags of /proc/cpuinfo for instruction sets that a compiler may use."""


def package_requirements(device: Device, flags: Set[str]) -> dict[str, Any]:
    """Return the requirements of a package that is compiled for `device` and a CPU with these flags."""
    names = sorted(flag for flag in flags if _INSTRUCTION_SET_FLAG.match(flag))
    return {"precision": device.precision, "torch": torch.__version__, "cpu_flags": names}


class TorchCompiledClassifier:
    """The engine for compiled networks.

    For a CPU, packing compiles the network. The worker needs no compiler, but the same version of torch and the same
    instruction sets. For a GPU, the network is compiled at load, which takes minutes, and captured as CUDA graphs.
    This engine is therefore only selected if it is configured.
    """

    name = "torch-compiled"

    def __init__(self, spec: InputSpec, max_batch: int) -> None:
        self._max_batch = max_batch
        self._gpu_engine = _CompilingClassifier(spec, max_batch)

    def load(self, folder: Path, device: Device) -> None:
        """Load the package, or compile the network for a GPU.

        Raises:
            EngineUnavailable: The package is missing or does not fit this worker.
        """
        if device.torch_device.type == "cuda":
            self._gpu_engine.load(folder, device)
            self._network: Callable[[torch.Tensor], torch.Tensor] = self._gpu_engine.run
            self._description = self._gpu_engine.describe()
            return
        if self._max_batch > MAX_BATCH:
            raise EngineUnavailable(
                f"a compiled network supports at most {MAX_BATCH} images at once; reduce handler.max_batch "
                f"({self._max_batch})"
            )
        package, requirements = folder / PREPARED_DIR / PACKAGE, folder / PREPARED_DIR / REQUIREMENTS
        if not package.exists():
            raise EngineUnavailable(
                "the archive has no compiled network; pack it with handler.engine: torch-compiled"
            )
        _check_requirements(json.loads(requirements.read_text()), package_requirements(device, cpu_flags()))
        self._network = torch._inductor.aoti_load_package(str(package))
        self._description = {"precision": device.precision}

    @torch.inference_mode()
    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch that the `InputSpec` describes: float32 [n, labels] on the CPU."""
        return self._network(batch)

    def describe(self) -> dict[str, Any]:
        """Return the engine, the precision, and the CUDA graphs on a GPU."""
        return self._description | {"engine": self.name}


class _CompilingClassifier(TorchClassifier):
    def prepare(self, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the compiled network."""
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(network)
        return compiled


def _check_requirements(required: dict[str, Any], actual: dict[str, Any]) -> None:
    if required["torch"] != actual["torch"]:
        raise EngineUnavailable(
            f"the compiled network requires torch {required['torch']}, not {actual['torch']}; pack the model again"
        )
    missing = sorted(set(required["cpu_flags"]) - set(actual["cpu_flags"]))
    if missing:
        raise EngineUnavailable(
            f"the compiled network requires CPU features that this CPU lacks: {', '.join(missing[:8])}"
        )
    if required["precision"] != actual["precision"]:
        raise EngineUnavailable(
            f"the compiled network has precision {required['precision']}, not {actual['precision']}; "
            "pack the model again"
        )
