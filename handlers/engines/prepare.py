"""Prepares a classifier at packing, so that a worker is ready in seconds: graphs, int8, compiled networks.

    python -m handlers.engines.prepare MODEL TARGET [--engine auto] [--precision auto] [--images FOLDER]

Prints what it did as JSON; where the model's files are to blame, one line on stderr and exit code 3. MODEL is a
folder in the hub's layout.
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
import torch

from handlers.core.device import Device
from handlers.core.errors import ConfigurationError
from handlers.core.faults import is_out_of_memory, model_file_errors
from handlers.engines.base import FACTS, REFUSED, EngineUnavailable
from handlers.engines.choice import FAST_BF16
from handlers.engines.classifier_network import ClassifierNetwork, blank
from handlers.engines.int8 import Pixels, quantize
from handlers.engines.openvino_classifier import FLOAT, INT8, convert, plain_network
from handlers.engines.openvino_runtime import import_openvino
from handlers.engines.torch_compiled_classifier import compile_package
from handlers.engines.weights import check_not_quantized, check_values
from handlers.vision.labels import PREPARED_LABELS, own_labels, read_labels
from handlers.vision.preprocess import Preprocessor
from handlers.vision.types import InputSpec, VisionConfig

PREPROCESS = "preprocess.json"
_LIMITS = VisionConfig()
_CHANNELS = 3
_PATH = re.compile(r"\S*[/\\]\S*")


def prepare_classifier(
    model: Path,
    target: Path,
    engine: str = "auto",
    images: Sequence[Path] = (),
    precision: str = "auto",
) -> dict[str, Any]:
    """Fill the folder `target` for engine and precision of the configuration; with `images`, in int8 as well.

    Gives the facts, which `prepared.json` has too. A network that OpenVINO cannot convert is left out and said there,
    as a worker has other engines; but where int8 was asked for, it raises. The same inputs give the same bytes, but
    for a compiled network. Raises ConfigurationError for a model without a preprocessor, an unknown precision,
    weights that do not fit or are no numbers, and labels that do not go with the network's outputs; HandlerError for
    an image that cannot be read, OSError where files cannot be written, and what the libraries raise.
    """
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "engine": engine,
        "torch": version("torch").split("+")[0],
        "transformers": version("transformers"),
    }
    config_json = json.loads((model / "config.json").read_text(encoding="utf-8"))
    _check_channels(config_json)
    own = own_labels(config_json)
    with model_file_errors(
        "transformers cannot prepare images by preprocessor_config.json",
        "correct it, or add what the image processor's save_pretrained(folder) writes",
    ):
        preprocessor = Preprocessor(model)
    if preprocessor.plan is not None:
        preprocessor.plan.write(target / PREPROCESS)
    network = _network(model, preprocessor.spec)
    with model_file_errors("config.json gives no labels", "name each output in its 'id2label'"):
        labels, _ = read_labels(model)
    _check_labels(network, preprocessor.spec, len(labels))
    if not own:
        (target / PREPARED_LABELS.name).write_text(json.dumps(labels, indent=0) + "\n")
    if engine in ("auto", "openvino") or images:
        facts["openvino"] = _openvino(network, target, preprocessor, images)
    if engine == "torch-compiled":
        config = VisionConfig.from_mapping({"precision": precision})
        device = Device.choose(None, config, bf16_flags=FAST_BF16)
        facts["torch_compiled"] = compile_package(model, preprocessor.spec, device, target)
    (target / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts


def _network(model: Path, spec: InputSpec) -> ClassifierNetwork:
    """The network in float32, its weights checked. Raises ConfigurationError."""
    check_not_quantized(model)
    with model_file_errors("the weights and config.json do not fit each other", "pack the two of one save"):
        network = plain_network(model, spec)
    inner = network.network
    check_values(model, inner if isinstance(inner, torch.nn.Module) else network)
    return network


def _check_channels(config: dict[str, Any]) -> None:
    arguments = config.get("model_args")  # timm's
    places = {"num_channels": config, "in_chans": arguments if isinstance(arguments, dict) else {}}
    for name, settings in places.items():
        channels = settings.get(name, _CHANNELS)
        if channels != _CHANNELS:
            raise ConfigurationError(
                f"config.json: {name!r} is {channels!r}, and images have {_CHANNELS} channels (RGB); "
                "convert the network's first layer to those, or serve it with a handler of your own (--handler)"
            )


@torch.no_grad()
def _check_labels(network: ClassifierNetwork, spec: InputSpec, labels: int) -> None:
    with model_file_errors(
        f"the network does not take images of {spec.height} x {spec.width} pixels, as "
        "preprocessor_config.json makes them",
        "pack the two of one save",
    ):
        outputs = network(blank(spec._replace(normalization=None), 1)).shape[-1]
    if outputs != labels:
        raise ConfigurationError(f"the network has {outputs} outputs, and config.json gives {labels} labels")


def _openvino(
    network: ClassifierNetwork, target: Path, preprocessor: Preprocessor, images: Sequence[Path]
) -> dict[str, Any]:
    try:
        graph = convert(network, preprocessor.spec)
    except Exception as error:
        if images or isinstance(error, OSError) or is_out_of_memory(error):
            raise
        return {"none": _short(error)}
    openvino = import_openvino()
    openvino.save_model(graph, target / FLOAT, compress_to_fp16=False)
    facts: dict[str, Any] = {"version": version("openvino")}
    if images:
        result = quantize(graph, [_pixels(preprocessor, path) for path in images])
        openvino.save_model(result.model, target / INT8, compress_to_fp16=False)
        facts["int8"] = {
            "nncf": version("nncf"),
            "images": len(images),
            "agreement": round(result.agreement, 4),
            "setting": result.setting,
        }
    return facts


def _short(error: Exception) -> str:
    """Its kind and first line. Paths are this machine's own, and the archive would differ from one to the next."""
    text = _PATH.sub("...", str(error).partition("\n")[0])
    return f"{type(error).__name__}: {text}"[:200]


def _pixels(preprocessor: Preprocessor, path: Path) -> Pixels:
    """One image as the graph gets it behind its normalization: [1, 3, height, width]."""
    pixels: Pixels = preprocessor.read(path.read_bytes(), _LIMITS.max_pixels, _LIMITS.max_bytes).numpy()
    normalization = preprocessor.spec.normalization
    if normalization is None:
        return pixels[None]
    mean, std = (np.array(values, np.float32) for values in normalization[1:])
    ready: Pixels = (pixels * np.float32(normalization.scale) - mean) / std
    return np.ascontiguousarray(ready.transpose(2, 0, 1)[None])


def main() -> None:
    """The command line; a failure is one line on stderr."""
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
        raise SystemExit("this machine has too little memory for it") from None
    except ConfigurationError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REFUSED)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
