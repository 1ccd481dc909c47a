"""A network in int8 for OpenVINO: its ranges from images, its agreement with float32 measured on them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handlers.engines.base import EngineUnavailable
from handlers.engines.openvino_runtime import compiled, import_openvino

MIN_AGREEMENT = 0.98
"""Of the images, how many must keep their likeliest label. Below it a more careful setting is tried, and a worker
takes int8 only where it is asked for by name."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quantized:
    """`agreement`: the share of the images whose likeliest label is float32's, 0 to 1."""

    model: Any
    agreement: float
    setting: str


def quantize(model: Any, images: Sequence[Pixels]) -> Quantized:
    """The first setting that agrees well enough, or the one that agrees best.

    `model` is an openvino.Model for float32 [?, 3, height, width], which stays as it is; each of `images` is such
    an array of one row. Raises EngineUnavailable where NNCF is not installed.
    """
    import_openvino()  # before NNCF, whose own import would report its use
    try:
        import nncf
    except ImportError as error:
        raise EngineUnavailable(f"int8 needs NNCF, which is not installed here ({error})") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    wanted = _labels(model, images)
    tried: list[Quantized] = []
    for setting, options in _settings(nncf, model):
        made = nncf.quantize(model.clone(), nncf.Dataset(images), subset_size=len(images), **options)
        agreement = float((_labels(made, images) == wanted).mean())
        tried.append(Quantized(made, agreement, setting))
        if agreement >= MIN_AGREEMENT:
            break
    return max(tried, key=lambda result: result.agreement)


def _settings(nncf: Any, model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The usual, then the careful, which on MobileNetV2 cuts the distance from fp32's logits to a fifth.

    "Mixed": weights symmetric, activations not, as most are not. Minimum and maximum as ranges clip nothing; for
    layers that are fine with the usual ones that is too coarse. A slower bias correction gained nothing.
    """
    mixed = {"preset": nncf.QuantizationPreset.MIXED}
    yield "mixed", mixed
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    yield (
        "mixed, full ranges; depthwise, first and last layers in float",
        mixed
        | {
            "advanced_parameters": nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges
            ),
            "ignored_scope": nncf.IgnoredScope(names=_delicate(model)),
        },
    )


def _delicate(model: Any) -> list[str]:
    """Layers that lose most in int8: the first, the last, and depthwise ones, whose channels differ most in range."""
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in kinds]
    depthwise = [op for op in layers[1:-1] if op.get_type_name() == "GroupConvolution"]
    return [op.get_friendly_name() for op in (*layers[:1], *depthwise, *layers[1:][-1:])]


def _labels(model: Any, images: Sequence[Pixels]) -> npt.NDArray[np.int64]:
    network = compiled(import_openvino().Core(), model, {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array([network(pixels)[0].argmax() for pixels in images])
