"""What preparing a model has found, in words for the person who packs it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.vision.labels import PREPARED_LABELS, own_labels
from torchserve_models.packing.sources.model_files import CONFIG, ModelFile
from torchserve_models.packing.sources.resolve import Report

_UNNAMED = re.compile(r"LABEL_\d+")


def summary(facts: Mapping[str, Any]) -> str:
    """The facts of provenance.json in a line for a person; empty where nothing was prepared."""
    parts = []
    openvino = facts.get("openvino", {})
    if "none" in openvino:
        parts.append(f"not for OpenVINO ({openvino['none']})")
    elif openvino:
        parts.append(f"OpenVINO {openvino['version']}")
    if int8 := openvino.get("int8"):
        parts.append(f"int8 from {int8['images']} images, {int8['agreement']:.1%} of them labeled as in fp32")
    if "torch_compiled" in facts:
        parts.append("torch-compiled for this CPU")
    attention = facts.get("step_attention", {})
    if "none" in attention:
        parts.append(f"attention not compiled ({attention['none']})")
    elif attention:
        parts.append("attention compiled for AVX-512")
    return ", ".join(parts)


def warn_of_int8(name: str, facts: Mapping[str, Any], report: Report) -> None:
    """Says it where int8 is not good enough for workers to take it by themselves."""
    int8 = facts.get("openvino", {}).get("int8")
    if int8 is None:
        return
    from handlers.engines.int8 import MIN_AGREEMENT

    if int8["agreement"] < MIN_AGREEMENT:
        report(
            f"{name}: WARNING: int8 labels only {int8['agreement']:.1%} of its images as fp32 does; below "
            f"{MIN_AGREEMENT:.0%} workers do not take it.\n"
            "  More images of the kind that the model is for may help; `precision: int8` takes it all the same."
        )


def warn_of_unnamed(name: str, files: Sequence[ModelFile], report: Report) -> None:
    """Models that were trained without names for their classes answer with LABEL_0, LABEL_1, ..."""
    paths = {file.name: file.path for file in files}
    config = json.loads(paths[CONFIG].read_bytes())
    labels = own_labels(config)
    if not labels and (named := paths.get(f"prepared/{PREPARED_LABELS.name}")):
        labels = json.loads(named.read_bytes())
    if labels and all(_UNNAMED.fullmatch(label) for label in labels):
        report(
            f"{name}: WARNING: its labels are {labels[0]} to {labels[-1]}, as config.json names none.\n"
            "  Name them: --labels FILE, with one label a line in the order of the classes."
        )
