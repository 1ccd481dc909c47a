"""Preparation of an image classifier: checks, conversion to OpenVINO, int8 and compilation.

    python -m torchserve_models.packing.engines.classifier \
        MODEL TARGET [--engine auto] [--precision auto] [--images FOLDER]

MODEL is a Hugging Face model folder. Prints the facts as JSON. If workers cannot load the model, prints the reason in
one line on stderr and exits with code 3.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from handlers.core.device import FAST_BF16, Device
from handlers.core.errors import ConfigurationError
from handlers.core.exception_handling import is_out_of_memory, model_file_errors
from handlers.engines.base import FACTS_FILE, EngineUnavailable
from handlers.engines.image.classifier_network import ClassifierNetwork, blank_batch
from handlers.engines.image.int8_agreement import INT8_GRAPH, CheckImages, write_check_images
from handlers.engines.image.openvino_classifier import FLOAT_GRAPH, convert, load_float_network
from handlers.engines.image.openvino_runtime import import_openvino
from handlers.engines.image.types import InputSpec
from handlers.vision.labels import PREPARED_LABELS, config_labels, read_labels
from handlers.vision.preprocess import Preprocessor
from handlers.vision.types import VisionConfig
from torchserve_models.packing.engines.int8 import (
    Pixels,
    QuantizedModel,
    quantize,
    select_check_images,
)
from torchserve_models.packing.engines.torch_compiled import compile_package
from torchserve_models.packing.engines.weights import check_not_quantized, check_values
from torchserve_models.packing.sources.run_conversion import REJECTED_EXIT_CODE

PREPROCESS = "preprocess.json"
_LIMITS = VisionConfig()
_CHANNELS = 3
_PATH = re.compile(r"\S*[/\\]\S*")
"""A word that contains a slash or a backslash."""


def prepare_classifier(
    model: Path,
    target: Path,
    engine: str = "auto",
    images: Sequence[Path] = (),
    precision: str = "auto",
) -> dict[str, Any]:
    """Check a model, and write the files for its engine to the folder `target`.

    If OpenVINO cannot convert the network, the facts contain the reason, and workers use another engine. The same
    inputs produce the same bytes, except for a compiled network.

    Args:
        model: Hugging Face model folder.
        target: The folder to create.
        engine: The `handler.engine` setting of model-config.yaml.
        images: Images for int8 calibration; without images no int8 network is created.
        precision: The `handler.precision` setting, used for a compiled network.

    Returns:
        The facts, which are also written to `prepared.json` in `target`.

    Raises:
        ConfigurationError: Workers cannot load the model, because the image processor is missing, weights do not fit
            or are not finite, the labels do not match the outputs, or the precision is unknown.
        HandlerError: An image cannot be read.
        OSError: A file cannot be read or written.
        EngineUnavailable: OpenVINO or NNCF is not installed.
        Exception: OpenVINO failed and `images` is not empty, or torch's compiler failed.
    """
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "engine": engine,
        "torch": version("torch").split("+")[0],
        "transformers": version("transformers"),
    }
    config_json = json.loads((model / "config.json").read_text(encoding="utf-8"))
    _check_channels(config_json)
    has_labels = bool(config_labels(config_json))
    with model_file_errors(
        "preprocessor_config.json is not a valid image processor configuration",
        "correct it, or add the files that the image processor's save_pretrained(folder) writes",
    ):
        preprocessor = Preprocessor(model)
    if preprocessor.plan is not None:
        preprocessor.plan.write(target / PREPROCESS)
    network = _load_network(model, preprocessor.spec)
    with model_file_errors("config.json has no valid labels", "set 'id2label' with a name for each output"):
        labels, _ = read_labels(model)
    _check_labels(network, preprocessor.spec, len(labels))
    if not has_labels:
        (target / PREPARED_LABELS.name).write_text(json.dumps(labels, indent=0) + "\n")
    if engine in ("auto", "openvino") or images:
        facts["openvino"] = _prepare_openvino(network, target, preprocessor, images)
    if engine == "torch-compiled":
        config = VisionConfig.from_mapping({"precision": precision})
        device = Device.choose(None, config, bf16_flags=FAST_BF16)
        facts["torch_compiled"] = compile_package(model, preprocessor.spec, device, target)
    (target / FACTS_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts


def _load_network(model: Path, spec: InputSpec) -> ClassifierNetwork:
    """Load the network in float32 and check its weights. Raises ConfigurationError."""
    check_not_quantized(model)
    with model_file_errors("the weights do not match config.json", "save both again with save_pretrained()"):
        network = load_float_network(model, spec)
    inner = network.network
    check_values(model, inner if isinstance(inner, torch.nn.Module) else network)
    return network


def _check_channels(config: dict[str, Any]) -> None:
    arguments = config.get("model_args")  # timm's
    settings_by_name = {"num_channels": config, "in_chans": arguments if isinstance(arguments, dict) else {}}
    for name, settings in settings_by_name.items():
        channels = settings.get(name, _CHANNELS)
        if channels != _CHANNELS:
            raise ConfigurationError(
                f"config.json: {name!r} is {channels!r}, but must be {_CHANNELS} (RGB); convert the network's first "
                "layer, or use a custom handler (--handler)"
            )


@torch.no_grad()
def _check_labels(network: ClassifierNetwork, spec: InputSpec, labels: int) -> None:
    with model_file_errors(
        f"the network does not accept images of {spec.height} x {spec.width} pixels, the size in "
        "preprocessor_config.json",
        "save both again with save_pretrained()",
    ):
        outputs = network(blank_batch(spec._replace(normalization=None), 1)).shape[-1]
    if outputs != labels:
        raise ConfigurationError(
            f"the network has {outputs} outputs, but config.json has {labels} labels; add one label per output"
        )


def _prepare_openvino(
    network: ClassifierNetwork, target: Path, preprocessor: Preprocessor, images: Sequence[Path]
) -> dict[str, Any]:
    """Write the network for OpenVINO (with images, also in int8), and return its facts."""
    try:
        graph = convert(network, preprocessor.spec)
    except Exception as error:
        if images or isinstance(error, OSError) or is_out_of_memory(error):
            raise
        return {"none": _summarize_reproducibly(error)}
    openvino = import_openvino()
    openvino.save_model(graph, target / FLOAT_GRAPH, compress_to_fp16=False)
    facts: dict[str, Any] = {"version": version("openvino")}
    if images:
        result = quantize(
            graph, [_normalize(_read(preprocessor, path), preprocessor.spec) for path in images]
        )
        openvino.save_model(result.model, target / INT8_GRAPH, compress_to_fp16=False)
        facts["int8"] = {
            "nncf": version("nncf"),
            "images": len(images),
            "agreement": round(result.agreement, 4),
            "setting": result.setting,
            "check_images": _write_check_images(result, target, preprocessor, images),
        }
    return facts


def _summarize_reproducibly(error: Exception) -> str:
    """Return the type and first line of an error, without paths because they differ between machines."""
    text = _PATH.sub("...", str(error).partition("\n")[0])
    return f"{type(error).__name__}: {text}"[:200]


def _write_check_images(
    result: QuantizedModel, target: Path, preprocessor: Preprocessor, images: Sequence[Path]
) -> int:
    """Write some of the images with which workers verify the int8 network, and return their number."""
    first = _read(preprocessor, images[0])
    indices = select_check_images(result, first.nbytes)
    pixels = np.empty((len(indices), *first.shape), first.dtype)
    for position, index in enumerate(indices):
        pixels[position] = _read(preprocessor, images[index])
    labels = torch.from_numpy(result.labels[np.array(indices, np.int64)].astype(np.int64))
    write_check_images(target, CheckImages(torch.from_numpy(pixels), labels))
    return len(indices)


def _read(preprocessor: Preprocessor, path: Path) -> npt.NDArray[Any]:
    """Return one image in the format of the engines, without the batch dimension."""
    pixels = preprocessor.read(path.read_bytes(), _LIMITS.max_pixels, _LIMITS.max_bytes)
    array: npt.NDArray[Any] = pixels.numpy()
    return array


def _normalize(pixels: npt.NDArray[Any], spec: InputSpec) -> Pixels:
    """Return a normalized image [1, 3, height, width], the input of the graph."""
    if spec.normalization is None:
        return pixels[None]
    mean, std = (np.array(values, np.float32) for values in spec.normalization[1:])
    normalized: Pixels = (pixels * np.float32(spec.normalization.scale) - mean) / std
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])


def main() -> None:
    """Run the command line. After a failure, the last line on stderr is the reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=Path, help="a folder of images to calibrate int8 with")
    arguments = parser.parse_args()
    images = (
        sorted(path for path in arguments.images.rglob("*") if path.is_file()) if arguments.images else []
    )
    try:
        with redirect_stdout(sys.stderr):
            facts = prepare_classifier(
                arguments.model, arguments.target, arguments.engine, images, arguments.precision
            )
    except EngineUnavailable as error:
        raise SystemExit(str(error)) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SystemExit("this machine has too little memory to prepare the model") from None
    except ConfigurationError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REJECTED_EXIT_CODE)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
