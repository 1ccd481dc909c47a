"""Quantization of a network to int8 for OpenVINO, calibrated with images.

CPUs without VNNI or AMX add the products of two uint8 activations and int8 weights in 16 bits, which saturate.
Weights are therefore limited to 7 bits (NNCF's overflow fix): 2 * 255 * 64 < 2**15. The network then computes the
same on all CPUs, except for rounding, and the agreement that is measured here holds on all of them.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers.engines.base import EngineUnavailable
from handlers.engines.image.int8_agreement import MIN_AGREEMENT
from handlers.engines.image.openvino_runtime import compile_model, import_openvino

Pixels = npt.NDArray[np.float32]

MAX_CHECK_IMAGES = 8
MAX_CHECK_BYTES = 4 * 2**20
"""Limit of the stored images' pixels, of which at least one image is stored."""

MIN_LEAD = 0.1
"""Smallest lead of a stored image's best logit, as a multiple of the logits' standard deviation in an image.

bf16 changed the leads of the starter by at most 0.02 on a CPU with AMX.
"""

ROUNDING_SHARE = 0.05
"""Share of the images with the smallest leads that are not stored, because rounding could change their labels."""


@dataclass(frozen=True)
class QuantizedModel:
    """A model in int8.

    Attributes:
        model: An openvino.Model.
        setting: Name of the quantization setting.
        logits: Logits of the images in int8, float32 [n, labels].
        labels: Labels of the images in float32, int64 [n].
        error: Mean absolute difference of the logits from those in float32.
    """

    model: Any
    setting: str
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    error: float = 0.0

    @property
    def agrees(self) -> npt.NDArray[np.bool_]:
        """Whether each image has the same label as in float32, [n]."""
        agrees: npt.NDArray[np.bool_] = self.logits.argmax(1) == self.labels
        return agrees

    @property
    def agreement(self) -> float:
        """Share of images with the same label as in float32, 0 to 1."""
        return float(self.agrees.mean())


def quantize(model: Any, images: Sequence[Pixels]) -> QuantizedModel:
    """Quantize a model with the first setting whose agreement is at least MIN_AGREEMENT, or else the most exact one.

    Args:
        model: An openvino.Model for float32 [?, 3, height, width], which is not changed.
        images: Normalized images, [1, 3, height, width] each.

    Raises:
        EngineUnavailable: OpenVINO or NNCF is not installed.
    """
    import_openvino()  # first, because it blocks the telemetry that NNCF's import would send
    try:
        import nncf
    except ImportError as error:
        raise EngineUnavailable(
            f"int8 requires NNCF, which is not installed ({error}); run scripts/setup --calibrate"
        ) from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    expected = _predict(model, images)
    results: list[QuantizedModel] = []
    for setting, options in _settings(nncf, model):
        quantized = nncf.quantize(model.clone(), nncf.Dataset(images), subset_size=len(images), **options)
        logits = _predict(quantized, images)
        logit_error = float(np.abs(logits - expected).mean())
        results.append(QuantizedModel(quantized, setting, logits, expected.argmax(1), logit_error))
        if results[-1].agreement >= MIN_AGREEMENT:
            break
    return min(results, key=lambda result: (result.agreement < MIN_AGREEMENT, result.error))


def _settings(nncf: Any, model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and options of each setting: the default, then a more precise setting.

    The second setting about halves the error of MobileNetV2's logits. "Mixed" quantizes weights symmetrically
    and activations, which mostly have asymmetric distributions, asymmetrically. Full ranges clip no value, but are
    too coarse for layers that the default ranges suit. A slower bias correction had no effect.
    """
    mixed = {"preset": nncf.QuantizationPreset.MIXED}
    seven_bits = nncf.OverflowFix.ENABLE
    yield (
        "mixed",
        mixed | {"advanced_parameters": nncf.AdvancedQuantizationParameters(overflow_fix=seven_bits)},
    )
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    yield (
        "mixed, full ranges; depthwise, first and last layers in float",
        mixed
        | {
            "advanced_parameters": nncf.AdvancedQuantizationParameters(
                overflow_fix=seven_bits, activations_range_estimator_params=ranges
            ),
            "ignored_scope": nncf.IgnoredScope(names=_sensitive_layers(model)),
        },
    )


def _sensitive_layers(model: Any) -> list[str]:
    """Return the names of the layers that lose most accuracy in int8: first, last and depthwise layers."""
    layer_types = ("Convolution", "GroupConvolution", "MatMul")
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in layer_types]
    depthwise = [op for op in layers[1:-1] if op.get_type_name() == "GroupConvolution"]
    return [op.get_friendly_name() for op in (*layers[:1], *depthwise, *layers[1:][-1:])]


def _predict(model: Any, images: Sequence[Pixels]) -> npt.NDArray[np.float32]:
    """Return the logits of each image, [n, labels]. Layers that are not in int8 compute in float32."""
    network = compile_model(import_openvino().Core(), model, {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([network(pixels)[0] for pixels in images])


def select_check_images(result: QuantizedModel, image_bytes: int) -> list[int]:
    """Return the indices of images with which workers verify that their CPU computes the network correctly.

    Only images that have the same label in int8 and float32 can show an error of the CPU. Among them, those whose
    best logit has a small lead are the most sensitive. Leads below MIN_LEAD and the smallest of the others are left
    out, because a different rounding could change their labels.

    Args:
        result: The quantized model.
        image_bytes: Size of one image in bytes.

    Returns:
        At most MAX_CHECK_IMAGES indices of different logits, none if no image is suitable.
    """
    count = max(1, min(MAX_CHECK_IMAGES, MAX_CHECK_BYTES // image_bytes))
    best_two = np.sort(result.logits, axis=1)[:, -2:]
    leads = best_two[:, -1] - best_two[:, 0]
    spread = float(np.sqrt(result.logits.var(axis=1).mean()))
    is_suitable = result.agrees & (leads > MIN_LEAD * spread)
    ordered = [int(index) for index in leads.argsort(kind="stable") if is_suitable[index]]
    start = min(int(len(ordered) * ROUNDING_SHARE), max(0, len(ordered) - count))
    return ordered[start : start + count]
