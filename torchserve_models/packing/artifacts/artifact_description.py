"""Descriptions of prepared files, and warnings about them, for the user."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.vision.labels import PREPARED_LABELS, config_labels
from torchserve_models.packing.request import Report
from torchserve_models.packing.sources.model_files import CONFIG, ModelFile

_GENERIC_LABEL = re.compile(r"LABEL_\d+")


def summarize(facts: Mapping[str, Any]) -> str:
    """Return a one-line description of the prepared files, empty if there are none.

    `facts` is the field `prepared` of provenance.json.
    """
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
    kernels = facts.get("step_kernels", {})
    if "none" in kernels:
        parts.append(f"decoding step not compiled ({kernels['none']})")
    elif kernels:
        parts.append("decoding step compiled for AVX2 and AVX-512")
    return ", ".join(parts)


def warn_about_int8(name: str, facts: Mapping[str, Any], report: Report) -> None:
    """Report an int8 network that workers do not use by default because it differs too much from fp32."""
    int8 = facts.get("openvino", {}).get("int8")
    if int8 is None:
        return
    from handlers.engines.image.int8_agreement import MIN_AGREEMENT

    if int8["agreement"] < MIN_AGREEMENT:
        report(
            f"{name}: WARNING: int8 and fp32 predict the same label for only {int8['agreement']:.1%} of the images. "
            f"Workers do not use int8 below {MIN_AGREEMENT:.0%}.\n"
            "  More images similar to those the model will classify may help. `precision: int8` uses int8 anyway."
        )


def warn_about_generic_labels(name: str, files: Sequence[ModelFile], report: Report) -> None:
    """Report a model without class names, whose labels are LABEL_0, LABEL_1, ..."""
    paths = {file.name: file.path for file in files}
    config = json.loads(paths[CONFIG].read_bytes())
    labels = config_labels(config)
    if not labels and (labels_file := paths.get(f"prepared/{PREPARED_LABELS.name}")):
        labels = json.loads(labels_file.read_bytes())
    if labels and all(_GENERIC_LABEL.fullmatch(label) for label in labels):
        report(
            f"{name}: WARNING: the labels are {labels[0]} to {labels[-1]}, because config.json has no class names.\n"
            "  To set class names, use --labels FILE, with one label per line in the order of the classes."
        )
