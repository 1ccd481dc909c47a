"""The engine `openvino` for image classification on a CPU."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.image.classifier_network import (
    ClassifierNetwork,
    export,
    ignore_warnings,
    load_classifier,
)
from handlers.engines.image.int8_agreement import INT8_GRAPH
from handlers.engines.image.openvino_runtime import (
    compile_model,
    free_last_models,
    import_openvino,
    preserve_logging,
)
from handlers.engines.image.types import InputSpec

FLOAT_GRAPH = "openvino.xml"
"""The model in the folder of prepared files, for float32 [n, 3, height, width]; normalization is added at load."""

_MAX_BATCH = 1024
logger = logging.getLogger(__name__)


class OpenVinoClassifier:
    """The engine for any network that torch.export can trace.

    Packing converts the network. If an archive has no converted network, it is converted at load. Under load each
    worker uses its share of the cores. A single image uses all cores, because its worker is most likely the only busy
    one, unless the configuration sets the number of threads.

    Attributes:
        int8_facts: Measurements of the model's int8 network, for the describe API; None without any.
    """

    name = "openvino"
    int8_facts: dict[str, Any] | None = None

    def __init__(self, spec: InputSpec, int8: bool = False) -> None:
        self._spec = spec
        self._int8 = int8

    def load(self, folder: Path, device: Device) -> None:
        """Load the converted network, or convert it.

        Raises:
            EngineUnavailable: The worker has a GPU, OpenVINO is not installed, or the archive has no int8 network.
            Exception: An error of OpenVINO or transformers for a network that cannot be converted.
        """
        if device.torch_device.type != "cpu":
            raise EngineUnavailable("the openvino engine supports only CPUs, and this worker uses a GPU")
        openvino = import_openvino()
        core = openvino.Core()
        path = folder / PREPARED_DIR / (INT8_GRAPH if self._int8 else FLOAT_GRAPH)
        self._source = "archive"
        if path.exists():
            model = core.read_model(path)
        elif self._int8:
            raise EngineUnavailable("the archive has no int8 network; pack it with --calibrate")
        else:
            started = time.monotonic()
            model = convert(load_float_network(folder, self._spec), self._spec)
            self._source = "converted at load"
            logger.info(
                "converted the network for OpenVINO in %.1f s; pack the model again to convert it in advance",
                time.monotonic() - started,
            )
        graph = with_normalization(model, self._spec)
        network = compile_model(core, graph, runtime_properties(device))
        self._request = self._single_image_request = network.create_infer_request()
        if device.single_item_threads > device.threads:
            all_cores = replace(device, threads=device.single_item_threads)
            single_image_network = compile_model(core, graph, runtime_properties(all_cores))
            self._single_image_request = single_image_network.create_infer_request()
        precision = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._precision = "int8" if self._int8 else {"f32": "fp32"}.get(precision, precision)

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch.

        Args:
            batch: The pixels that the `InputSpec` describes, which are not copied.

        Returns:
            float32 [n, labels]
        """
        request = self._single_image_request if len(batch) == 1 else self._request
        results = request.infer([batch.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(results[0])

    def describe(self) -> dict[str, Any]:
        """Return the engine, the precision, whether the archive had the converted network, and the int8 facts."""
        facts = {"engine": self.name, "precision": self._precision, "network": self._source}
        return facts if self.int8_facts is None else facts | {"int8": self.int8_facts}

    def unload(self) -> None:
        """Free the networks. Engines must be unloaded in the reverse order in which they were loaded."""
        count = 1 if self._request is self._single_image_request else 2
        del self._request, self._single_image_request
        free_last_models(count)


def runtime_properties(device: Device) -> dict[str, Any]:
    """Return OpenVINO's properties: one stream of `device.threads` threads.

    On two cores, two streams of one thread each were not faster. Threads are not pinned, because several workers
    would pin them to the same cores, which decoding uses as well.
    """
    return {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(device.precision, device.precision),
        "INFERENCE_NUM_THREADS": device.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
    }


def load_float_network(folder: Path, spec: InputSpec) -> ClassifierNetwork:
    """Return the network in float32, for pixels that are already normalized.

    Raises the errors of `load_classifier`.
    """
    network = load_classifier(folder, spec._replace(normalization=None), torch.float32)
    _replace_wide_pooling(network, max(spec.height, spec.width))
    return network


class _GlobalAveragePool(torch.nn.Module):
    """The mean of each channel: [n, channels, height, width] -> [n, channels, 1, 1]."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean((2, 3), keepdim=True)


def _replace_wide_pooling(network: torch.nn.Module, max_edge: int) -> None:
    """Replace average pooling whose window exceeds all images with the mean of the whole image.

    OpenVINO rejects such windows, which EfficientNet has. With `ceil_mode` torch cuts the window to the image and
    divides by the size of the cut window.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if not isinstance(child, torch.nn.AvgPool2d) or not child.ceil_mode or child.divisor_override:
                continue
            edges, padding = (
                value if isinstance(value, tuple) else (value,)
                for value in (child.kernel_size, child.padding)
            )
            if min(edges) > max_edge and not any(padding):
                setattr(module, name, _GlobalAveragePool())


def convert(network: ClassifierNetwork, spec: InputSpec) -> Any:
    """Return the network of `load_float_network` as an openvino.Model.

    It maps float32 [?, 3, height, width] to float32 [?, labels]. The weights stay float32: fp16 would halve the file,
    but `precision: fp32` would then compute with rounded weights.
    """
    openvino = import_openvino()
    program = export(network, spec._replace(normalization=None), _MAX_BATCH)
    with ignore_warnings(), preserve_logging():
        model = openvino.convert_model(program)
    model.reshape([-1, 3, spec.height, spec.width])
    return model


def with_normalization(model: Any, spec: InputSpec) -> Any:
    """Return a model that takes uint8 [n, height, width, 3], or `model` itself if the spec has no normalization."""
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
