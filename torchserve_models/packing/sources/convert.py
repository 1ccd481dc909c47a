"""Convert weights to safetensors without running code from them; run by run_conversion.py.

    python -m torchserve_models.packing.sources.convert torchvision \
        ARCHITECTURE STATE_DICT LABELS TARGET [--transforms NAME]
    python -m torchserve_models.packing.sources.convert transformers AUTO_CLASS FOLDER TARGET

Prints a description of the result as JSON. For invalid files, prints one line on stderr and exits with code 3.
"""

import argparse
import hashlib
import json
import math
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from handlers.engines.image.torchvision_network import MODEL_TYPE, build, fill
from handlers.engines.image.types import Normalization
from handlers.engines.loading import find_missing_weights
from handlers.vision.preprocessing_plan import PreprocessingPlan
from handlers.vision.resize import RESAMPLES
from torchserve_models.packing.sources.run_conversion import REJECTED_EXIT_CODE

_WRAPPED = ("state_dict", "model_state_dict", "model", "model_ema")
"""Keys under which training scripts store the state dict in a checkpoint."""
_NAMED_BY_DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth$")
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    command = kinds.add_parser("torchvision")
    command.add_argument("architecture")
    for name in ("state_dict", "labels", "target"):
        command.add_argument(name, type=Path)
    command.add_argument("--transforms")
    command = kinds.add_parser("transformers")
    command.add_argument("auto_class")
    for name in ("folder", "target"):
        command.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.kind == "transformers":
        result = _transformers(options.auto_class, options.folder, options.target)
    else:
        labels = json.loads(options.labels.read_text())
        result = _torchvision(
            options.architecture, options.state_dict, labels, options.target, options.transforms
        )
    print(json.dumps(result))


def _torchvision(
    architecture: str, file: Path, labels: list[str], target: Path, transforms: str | None
) -> dict[str, Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if architecture not in known:
        _reject(f"torchvision has no classifier {architecture!r}. Available: {', '.join(known)}.")
    weights = _state_dict(file)
    size = _image_size(architecture, weights)
    try:
        network = build(architecture, len(labels), size)
        _check_label_count(network, weights, len(labels), file)
        fill(network, weights)
    except (RuntimeError, AssertionError) as error:  # vit_* raises AssertionError for another image size
        lines = str(error).splitlines()
        problems = [line.strip() for line in lines[1:] or lines]
        _reject(f"{file} does not fit torchvision's {architecture}: {' '.join(problems)[:300]}")
    plan, described = _preprocessing(models.get_model_weights(architecture), file, transforms, size)
    target.mkdir()
    config: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "architecture": architecture,
        "architectures": [f"{MODEL_TYPE}:{architecture}"],
        "id2label": {str(index): label for index, label in enumerate(labels)},
    }
    if size is not None:
        config["image_size"] = size
    (target / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    tensors = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(tensors, target / "model.safetensors")
    plan.write(target / "preprocess.json")
    return {"transforms": described}


def _state_dict(file: Path) -> OrderedDict[str, torch.Tensor]:
    """Return the state dict in `file`, without the wrappers and prefixes that training scripts add."""
    if file.suffix == ".safetensors":
        try:
            content: Any = load_file(file)
        except SafetensorError as error:
            _reject(f"{file} is not a valid safetensors file: {error}. Get the file again.")
    else:
        content = _unpickle(file)
    for name in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        _reject(f"{file} contains no state dict. Save `model.state_dict()` and pack that file.")
    named: OrderedDict[str, torch.Tensor] = (
        OrderedDict()
    )  # an OrderedDict, because a plain dict has no attribute _metadata
    for name, value in content.items():
        plain = name
        while plain.startswith("module."):  # added by DataParallel, possibly repeatedly
            plain = plain.removeprefix("module.")
        if plain == "n_averaged":  # the counter of an AveragedModel
            continue
        named[_OLD_DENSENET.sub(r"\1\2", plain)] = value
    if named.keys() == content.keys() and hasattr(content, "_metadata"):
        named._metadata = content._metadata  # type: ignore[attr-defined]
    return named


def _unpickle(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        _reject(
            f"{file} is damaged, or loading it requires running code from it ({first[:120]}). Save "
            "`model.state_dict()` with torch.save or as safetensors, and pack that file."
        )


def _image_size(architecture: str, weights: Mapping[str, torch.Tensor]) -> int | None:
    """Return height and width, in pixels, of the images that a vit_* was trained with.

    The size follows from the number of position embeddings: one per patch, and one for the class token.

    Returns:
        The size, or None if the network accepts images of any size or the weights are not those of a vit_*.
    """
    positions, patches = weights.get("encoder.pos_embedding"), weights.get("conv_proj.weight")
    if not architecture.startswith("vit_") or positions is None or patches is None:
        return None
    if (positions.ndim, patches.ndim) != (3, 4):
        return None
    return math.isqrt(max(positions.shape[1] - 1, 0)) * patches.shape[-1]


def _check_label_count(
    network: torch.nn.Module, weights: Mapping[str, torch.Tensor], labels: int, file: Path
) -> None:
    """Reject a wrong number of labels, the most common error, in which only the last layer's shape differs."""
    expected_shapes = {name: value.shape for name, value in network.state_dict().items()}
    mismatched_shapes = {
        name: weights[name].shape
        for name in expected_shapes
        if name in weights and weights[name].shape != expected_shapes[name]
    }
    if mismatched_shapes and all(
        expected_shapes[name][:1] == (labels,) and shape[1:] == expected_shapes[name][1:]
        for name, shape in mismatched_shapes.items()
    ):
        (classes, *_) = next(iter(mismatched_shapes.values()))
        _reject(
            f"{file} has {classes} classes ({', '.join(mismatched_shapes)}), but --labels has {labels} labels. Pass "
            f"a file "
            f"with {classes} labels."
        )


def _preprocessing(
    enum: Any, file: Path, requested: str | None, size: int | None = None
) -> tuple[PreprocessingPlan, str]:
    """Select the torchvision transforms and describe them.

    The first available choice is used: the transforms of `requested`; those of the torchvision weights whose digest
    matches the file; those of the oldest torchvision weights for images of `size` pixels.
    """
    members = {member.name: member for member in enum}
    fitting = [name for name in members if size in (None, *members[name].transforms().crop_size)]
    if requested is not None and requested not in members:
        _reject(
            f"{requested!r} is not valid for --transforms with this architecture. Allowed: {', '.join(members)}."
        )
    selected = requested or _find_by_digest(members, file)
    name = selected or next(iter(fitting), next(iter(members)))
    preset = members[name].transforms()
    resample = preset.interpolation.value
    if resample not in RESAMPLES:
        _reject(
            f"the transforms of {name} resize with {resample}, which is not supported. Supported: "
            f"{', '.join(RESAMPLES)}."
        )
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    if name not in fitting:
        known = f"--transforms {' or '.join(fitting)}" if fitting else "none in torchvision"
        _reject(
            f"{file} requires images of {size} x {size}, but the transforms of {name} crop to {crop} x {crop}. "
            f"Transforms for {size}: {known}."
        )
    normalization = Normalization(1 / 255, tuple(preset.mean), tuple(preset.std))
    described = f"{resample} to {resize}, then center-cropped to {crop}, as for torchvision's {name}"
    others = [candidate for candidate in fitting if candidate != name]
    if selected is None and others:
        described += f" (alternatives: --transforms {' or '.join(others)})"
    return PreprocessingPlan(resize, resample, (crop, crop), normalization, "even"), described


def _find_by_digest(members: Mapping[str, Any], file: Path) -> str | None:
    """Return the name of the torchvision weights whose URL contains the start of the file's digest, or None."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    for name, member in members.items():
        named = _NAMED_BY_DIGEST.search(member.url)
        if named and digest.startswith(named[1]):
            return name
    return None


def _transformers(auto_class: str, folder: Path, target: Path) -> dict[str, Any]:
    """Load pickled weights with transformers and save them as safetensors."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        network, report = getattr(transformers, auto_class).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=False,
            weights_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        _reject(f"the weights are damaged, or loading them requires running code from them: {_line(error)}")
    if missing := find_missing_weights(network, report):
        _reject(
            f"weights of {type(network).__name__} are missing ({len(missing)} in total), such as "
            f"{missing[0]}."
        )
    network.save_pretrained(target, max_shard_size="1TB")
    return {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _reject(message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(REJECTED_EXIT_CODE)


if __name__ == "__main__":
    main()
