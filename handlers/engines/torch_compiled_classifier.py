"""PyTorch compiled for image classification: on a CPU at packing, on a GPU at load."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device, cpu_flags
from handlers.engines.base import PREPARED, EngineUnavailable
from handlers.engines.classifier_network import export, load_classifier, own_affairs
from handlers.engines.torch_classifier import TorchClassifier
from handlers.vision.types import InputSpec

PACKAGE, MADE_FOR = "torch-compiled.pt2", "torch-compiled.json"
MAX_BATCH = 256
"""Rows of a batch that a package is made for."""

# Flags that let a compiler use further instructions; the others of /proc/cpuinfo are about the kernel or bugs.
_INSTRUCTIONS = re.compile(
    r"avx|amx|sse|fma|f16c|bmi|adx|abm|popcnt|movbe|aes|pclmul|gfni|sha_ni|vaes|vpclmul"
)


def made_for(device: Device) -> dict[str, Any]:
    """What a package depends on beside the weights."""
    flags = sorted(flag for flag in cpu_flags() if _INSTRUCTIONS.match(flag))
    return {"precision": device.precision, "torch": torch.__version__, "cpu_flags": flags}


class TorchCompiledClassifier:
    """A CPU's package needs no compiler at load, but the same torch and instruction set that it was made with.

    On a GPU the network is compiled when it is loaded, which takes minutes, and its runs are recorded as eager ones
    are; that is why this engine is never chosen there unless it is asked for.
    """

    name = "torch-compiled"

    def __init__(self, spec: InputSpec, max_batch: int) -> None:
        self._max_batch = max_batch
        self._on_gpu = _CompiledAtLoad(spec, max_batch)

    def load(self, folder: Path, device: Device) -> None:
        """Raises EngineUnavailable."""
        if device.torch_device.type == "cuda":
            self._on_gpu.load(folder, device)
            self._network: Callable[[torch.Tensor], torch.Tensor] = self._on_gpu.run
            self._how = self._on_gpu.describe()
            return
        if self._max_batch > MAX_BATCH:
            raise EngineUnavailable(
                f"compiled networks take at most {MAX_BATCH} images at once; handler.max_batch is {self._max_batch}"
            )
        package, facts = folder / PREPARED / PACKAGE, folder / PREPARED / MADE_FOR
        if not package.exists():
            raise EngineUnavailable(
                "the archive has no compiled network; pack it with handler.engine: torch-compiled"
            )
        _check(json.loads(facts.read_text()), made_for(device))
        self._network = torch._inductor.aoti_load_package(str(package))
        self._how = {"precision": device.precision}

    @torch.inference_mode()
    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Pixels as the spec says to logits [n, labels] in float32 on the CPU."""
        return self._network(batch)

    def describe(self) -> dict[str, Any]:
        return self._how | {"engine": self.name}


class _CompiledAtLoad(TorchClassifier):
    def prepare(self, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(network)
        return compiled


def _check(made: dict[str, Any], here: dict[str, Any]) -> None:
    if made["torch"] != here["torch"]:
        raise EngineUnavailable(f"the compiled network is for torch {made['torch']}, not {here['torch']}")
    missing = sorted(set(made["cpu_flags"]) - set(here["cpu_flags"]))
    if missing:
        raise EngineUnavailable(
            f"the compiled network is for a CPU with {', '.join(missing[:8])}, which this one lacks"
        )
    if made["precision"] != here["precision"]:
        raise EngineUnavailable(f"the compiled network is in {made['precision']}, not in {here['precision']}")


def compile_package(folder: Path, spec: InputSpec, device: Device, target: Path) -> dict[str, Any]:
    """Compile for this machine's CPU with AOTInductor, which takes a C++ compiler and about 20 s for a ResNet-50.

    Writes the package and what it was made for into `target`; gives the latter.
    """
    program = export(load_classifier(folder, spec, device.dtype), spec, MAX_BATCH)
    with torch.no_grad(), own_affairs():
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(target / PACKAGE),
            # Weights in the order that the kernels want; threads as many as the worker has, not as this process.
            inductor_configs={"freezing": True, "cpp.dynamic_threads": True},
        )
    facts = made_for(device)
    (target / MADE_FOR).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts
