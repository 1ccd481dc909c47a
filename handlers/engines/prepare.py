"""Prepares a classifier at packing, so that a worker is ready in seconds: graphs, int8, compiled networks.

    python -m handlers.engines.prepare MODEL TARGET [--engine auto] [--pictures FOLDER]

Prints what it did as JSON. MODEL is a folder in the hub's layout.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from handlers.core.device import Device
from handlers.core.errors import ConfigurationError
from handlers.engines.base import EngineUnavailable
from handlers.engines.choice import FAST_BF16
from handlers.engines.int8 import Pixels, quantise
from handlers.engines.openvino_classifier import FLOAT, INT8, convert
from handlers.engines.openvino_runtime import import_openvino
from handlers.engines.torch_compiled_classifier import compile_package
from handlers.vision.plan import plan_of
from handlers.vision.preprocess import Preprocessor
from handlers.vision.types import VisionConfig

FACTS, PREPROCESS = "prepared.json", "preprocess.json"
FEW = 100
_LIMITS = VisionConfig()
logger = logging.getLogger(__name__)


def prepare_classifier(
    model: Path, target: Path, engine: str = "auto", pictures: Sequence[Path] = ()
) -> dict[str, Any]:
    """Fill the folder `target` for the engine of the configuration; with `pictures`, in int8 as well.

    Gives the facts, which `prepared.json` has too. What this machine cannot make is left out and said there, as a
    worker has other engines; but int8, which was asked for, raises EngineUnavailable. The same inputs give the same
    bytes, but for a compiled network. Raises ConfigurationError for a model without a preprocessor, ServingError for
    a picture that cannot be read, and what transformers raises for its files.
    """
    target.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "engine": engine,
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    preprocessor = Preprocessor(model)
    plan = plan_of(model)
    if plan is not None:
        plan.write(target / PREPROCESS)
    if engine in ("auto", "openvino") or pictures:
        try:
            facts["openvino"] = _openvino(model, target, preprocessor, pictures)
        except Exception as error:
            if pictures:
                raise
            facts["openvino"] = {"none": f"{type(error).__name__}: {error}"[:300]}
    if engine == "torch-compiled":
        device = Device.choose(None, _LIMITS, bf16_flags=FAST_BF16)
        facts["torch_compiled"] = compile_package(model, preprocessor.spec, device, target)
    (target / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return facts


def _openvino(
    model: Path, target: Path, preprocessor: Preprocessor, pictures: Sequence[Path]
) -> dict[str, Any]:
    openvino = import_openvino()
    graph = convert(model, preprocessor.spec)
    openvino.save_model(graph, target / FLOAT, compress_to_fp16=False)
    facts: dict[str, Any] = {"version": version("openvino")}
    if pictures:
        if len(pictures) < FEW:
            logger.warning("%d pictures are few to calibrate with; %d or more are better", len(pictures), FEW)
        result = quantise(graph, [_pixels(preprocessor, path) for path in pictures])
        openvino.save_model(result.model, target / INT8, compress_to_fp16=False)
        facts["int8"] = {
            "nncf": version("nncf"),
            "pictures": len(pictures),
            "agreement": round(result.agreement, 4),
            "setting": result.setting,
        }
    return facts


def _pixels(preprocessor: Preprocessor, path: Path) -> Pixels:
    """One picture as the graph gets it behind its normalisation: [1, 3, height, width]."""
    pixels: Pixels = preprocessor.read(path.read_bytes(), _LIMITS.max_pixels, _LIMITS.max_bytes).numpy()
    normalisation = preprocessor.spec.normalisation
    if normalisation is None:
        return pixels[None]
    mean, std = (np.array(values, np.float32) for values in normalisation[1:])
    ready: Pixels = (pixels * np.float32(normalisation.scale) - mean) / std
    return np.ascontiguousarray(ready.transpose(2, 0, 1)[None])


def main() -> None:
    """The command line; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures to calibrate int8 with")
    arguments = parser.parse_args()
    pictures = (
        sorted(path for path in arguments.pictures.rglob("*") if path.is_file()) if arguments.pictures else []
    )
    logging.basicConfig(format="%(message)s")
    try:
        with redirect_stdout(sys.stderr):
            facts = prepare_classifier(arguments.model, arguments.target, arguments.engine, pictures)
    except (EngineUnavailable, ConfigurationError) as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
