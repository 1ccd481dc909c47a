"""OpenVINO for image classification on a CPU."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device
from handlers.engines.base import PREPARED, EngineUnavailable
from handlers.engines.classifier_network import ClassifierNetwork, export, load_classifier, own_affairs
from handlers.engines.openvino_runtime import compiled, import_openvino, same_log
from handlers.vision.types import InputSpec

FLOAT, INT8 = "openvino.xml", "openvino-int8.xml"
"""Graphs for float32 [n, 3, height, width]; normalization is added when one is loaded."""

_MOST = 1024
logger = logging.getLogger(__name__)


class OpenVinoClassifier:
    """Any network that torch.export can trace; prepared at packing, converted at load where it was not.

    Workers that share the cores keep to their part of them under load. An image that comes alone has most likely the
    machine for itself, and is computed with all cores, unless the configuration says how many threads.
    """

    name = "openvino"

    def __init__(self, spec: InputSpec, int8: bool = False) -> None:
        self._spec = spec
        self._int8 = int8

    def load(self, folder: Path, device: Device) -> None:
        """Raises EngineUnavailable, and what OpenVINO or transformers raise for a network they cannot take."""
        if device.torch_device.type != "cpu":
            raise EngineUnavailable("it computes on a CPU, and this worker has a GPU")
        openvino = import_openvino()
        core = openvino.Core()
        path = folder / PREPARED / (INT8 if self._int8 else FLOAT)
        self._source = "archive"
        if path.exists():
            model = core.read_model(path)
        elif self._int8:
            raise EngineUnavailable("the archive has no int8 network; pack it with --calibrate")
        else:
            started = time.monotonic()
            model = convert(plain_network(folder, self._spec), self._spec)
            self._source = "converted at load"
            logger.info(
                "converted for OpenVINO in %.1f s; packing again spares it", time.monotonic() - started
            )
        graph = with_normalization(model, self._spec)
        network = compiled(core, graph, settings(device))
        self._request = self._lone = network.create_infer_request()
        if device.lone_threads > device.threads:
            wide = replace(device, threads=device.lone_threads)
            self._lone = compiled(core, graph, settings(wide)).create_infer_request()
        kind = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._precision = "int8" if self._int8 else {"f32": "fp32"}.get(kind, kind)

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Pixels as the spec says, read where they lie, to logits [n, labels] in float32."""
        request = self._lone if len(batch) == 1 else self._request
        results = request.infer([batch.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(results[0])

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "precision": self._precision, "network": self._source}


def settings(device: Device) -> dict[str, Any]:
    """One stream of `device.threads`: on two cores, two streams of one thread were no faster.

    Threads are not pinned: several workers would all pin theirs to the same cores, and decoding shares them too.
    """
    return {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(device.precision, device.precision),
        "INFERENCE_NUM_THREADS": device.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
    }


def plain_network(folder: Path, spec: InputSpec) -> ClassifierNetwork:
    """In float32 for pixels that are normalized already. Raises what loading it raises."""
    network = load_classifier(folder, spec._replace(normalization=None), torch.float32)
    _replace_wide_pooling(network, max(spec.height, spec.width))
    return network


class _Mean(torch.nn.Module):
    """The mean of each channel: [n, channels, height, width] to [n, channels, 1, 1]."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean((2, 3), keepdim=True)


def _replace_wide_pooling(network: torch.nn.Module, longest: int) -> None:
    """Average pooling with a window larger than any image, as EfficientNet's, is a mean over the whole.

    OpenVINO refuses such a window. With `ceil_mode` torch cuts it to what is there, and divides by that.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if not isinstance(child, torch.nn.AvgPool2d) or not child.ceil_mode or child.divisor_override:
                continue
            edges, padding = (
                value if isinstance(value, tuple) else (value,)
                for value in (child.kernel_size, child.padding)
            )
            if min(edges) > longest and not any(padding):
                setattr(module, name, _Mean())


def convert(network: ClassifierNetwork, spec: InputSpec) -> Any:
    """A `plain_network` as an openvino.Model: float32 [?, 3, height, width] -> float32 [?, labels].

    Weights stay float32: in fp16 they would halve the file, and no longer be the model's own in fp32.
    """
    openvino = import_openvino()
    program = export(network, spec._replace(normalization=None), _MOST)
    with own_affairs(), same_log():
        model = openvino.convert_model(program)
    model.reshape([-1, 3, spec.height, spec.width])
    return model


def with_normalization(model: Any, spec: InputSpec) -> Any:
    """The same network for uint8 [n, height, width, 3], where the spec leaves the normalization to the engine."""
    if spec.normalization is None:
        return model
    openvino = import_openvino()
    scale, mean, std = spec.normalization
    graph = openvino.preprocess.PrePostProcessor(model)
    pixels = graph.input()
    pixels.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.model().set_layout(openvino.Layout("NCHW"))
    steps = pixels.preprocess().convert_element_type(openvino.Type.f32)
    steps.mean([value / scale for value in mean]).scale([value / scale for value in std])
    return graph.build()
