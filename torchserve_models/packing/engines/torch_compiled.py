"""Compilation of a classifier with AOTInductor for the CPU of this machine."""

import json
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device, hardware_flags
from handlers.engines.image.classifier_network import export, ignore_warnings, load_classifier
from handlers.engines.image.torch_compiled_classifier import (
    MAX_BATCH,
    PACKAGE,
    REQUIREMENTS,
    package_requirements,
)
from handlers.engines.image.types import InputSpec


def compile_package(folder: Path, spec: InputSpec, device: Device, target: Path) -> dict[str, Any]:
    """Compile the classifier in `folder`, and write the package and its requirements to `target`.

    Compilation requires a C++ compiler and takes about 20 s for a ResNet-50.

    Returns:
        The requirements of the package: precision, torch version and CPU flags.
    """
    program = export(load_classifier(folder, spec, device.dtype), spec, MAX_BATCH)
    with torch.no_grad(), ignore_warnings():
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(target / PACKAGE),
            # "freezing" stores the weights in the layout of the kernels. With "dynamic_threads" the package uses the
            # threads of the worker instead of those of this process.
            inductor_configs={"freezing": True, "cpp.dynamic_threads": True},
        )
    # The compiler uses all instructions of this machine, whatever limits are set for libraries.
    requirements = package_requirements(device, hardware_flags())
    (target / REQUIREMENTS).write_text(json.dumps(requirements, indent=2, sort_keys=True) + "\n")
    return requirements
