"""Read weights without running code from them, check that they fit, and write safetensors; see conversion.py.

    python -m torchserve_models.packing.sources.convert torchvision \
        ARCHITECTURE STATE_DICT LABELS TARGET [--transforms NAME]
    python -m torchserve_models.packing.sources.convert transformers AUTO_CLASS FOLDER TARGET

Prints what it did as JSON; where the files are to blame, one line on stderr and exit code 3.
"""

import argparse
import hashlib
import json
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

from handlers.engines.loading import unfilled
from handlers.engines.torchvision_network import MODEL_TYPE, build, fill, image_size
from handlers.vision.plan import RESAMPLES, Plan
from handlers.vision.types import Normalization
from torchserve_models.packing.sources.conversion import REFUSED

_WRAPPED = ("state_dict", "model_state_dict", "model", "model_ema")
"""Where training scripts keep the state dict among other things."""
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
        said = _transformers(options.auto_class, options.folder, options.target)
    else:
        labels = json.loads(options.labels.read_text())
        said = _torchvision(
            options.architecture, options.state_dict, labels, options.target, options.transforms
        )
    print(json.dumps(said))


def _torchvision(
    architecture: str, file: Path, labels: list[str], target: Path, transforms: str | None
) -> dict[str, Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if architecture not in known:
        _refuse(f"torchvision has no classifier {architecture!r}; it has {', '.join(known)}.")
    weights = _state_dict(file)
    size = image_size(architecture, weights)
    try:
        network = build(architecture, len(labels), size)
        _check_count(network, weights, len(labels), file)
        fill(network, weights)
    except (RuntimeError, AssertionError) as error:  # an assertion where patches are of another size
        lines = str(error).splitlines()
        problems = [line.strip() for line in lines[1:] or lines]
        _refuse(f"{file} does not fit torchvision's {architecture}: {' '.join(problems)[:300]}")
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
    """The tensors by their names in the network, without what training scripts put around them."""
    if file.suffix == ".safetensors":
        try:
            content: Any = load_file(file)
        except SafetensorError as error:
            _refuse(f"{file} is not a whole safetensors file: {error}.")
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
        _refuse(f"{file} holds no state dict: save `model.state_dict()`.")
    named: OrderedDict[str, torch.Tensor] = OrderedDict()  # which takes attributes, as state dicts have one
    for name, value in content.items():
        plain = name
        while plain.startswith("module."):  # DataParallel's, once or more often
            plain = plain.removeprefix("module.")
        if plain == "n_averaged":  # of an averaged model, beside its weights
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
        _refuse(
            f"{file} cannot be read without running its code, or is damaged ({first[:120]}). Save "
            "`model.state_dict()` with torch.save or as safetensors, and pack that."
        )


def _check_count(
    network: torch.nn.Module, weights: Mapping[str, torch.Tensor], labels: int, file: Path
) -> None:
    """The commonest mistake, another number of labels, in words of its own: only the last layer is then of another
    size.
    """
    own = {name: value.shape for name, value in network.state_dict().items()}
    astray = {
        name: weights[name].shape for name in own if name in weights and weights[name].shape != own[name]
    }
    if astray and all(
        own[name][:1] == (labels,) and shape[1:] == own[name][1:] for name, shape in astray.items()
    ):
        (classes, *_) = next(iter(astray.values()))
        _refuse(f"{file} is for {classes} classes ({', '.join(astray)}), and there are {labels} labels.")


def _preprocessing(enum: Any, file: Path, wanted: str | None, size: int | None = None) -> tuple[Plan, str]:
    """Those of the weights asked for, else of the weights that the file is, by its digest, else of the oldest that
    make images of `size`, where the network takes no other.
    """
    members = {member.name: member for member in enum}
    fitting = [name for name in members if size in (None, *members[name].transforms().crop_size)]
    if wanted is not None and wanted not in members:
        _refuse(f"--transforms {wanted}: torchvision has {', '.join(members)} for this architecture.")
    found = wanted or _by_digest(members, file)
    name = found or next(iter(fitting), next(iter(members)))
    preset = members[name].transforms()
    resample = preset.interpolation.value
    if resample not in RESAMPLES:
        _refuse(f"the transforms of {name} resize by {resample}, which is not among {', '.join(RESAMPLES)}.")
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    if name not in fitting:
        known = f"--transforms {' or '.join(fitting)}" if fitting else "torchvision has none"
        _refuse(
            f"{file} is for images of {size} x {size}, and the transforms of {name} cut out {crop} x {crop}; "
            f"{known} for {size}."
        )
    normalization = Normalization(1 / 255, tuple(preset.mean), tuple(preset.std))
    described = f"{resample} to {resize}, the middle {crop}, as torchvision's {name} wants it"
    others = [each for each in fitting if each != name]
    if found is None and others:
        described += f" (--transforms {' or '.join(others)} for another)"
    return Plan(resize, resample, (crop, crop), normalization, "even"), described


def _by_digest(members: Mapping[str, Any], file: Path) -> str | None:
    """torchvision's own files bear the beginning of their digest in their names, which their weights' address has."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    for name, member in members.items():
        named = _NAMED_BY_DIGEST.search(member.url)
        if named and digest.startswith(named[1]):
            return name
    return None


def _transformers(auto_class: str, folder: Path, target: Path) -> dict[str, Any]:
    """The same network's weights as safetensors, as transformers itself writes them."""
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
        _refuse(f"its weights cannot be read without running their code, or are damaged: {_line(error)}")
    if missing := unfilled(network, report):
        _refuse(
            f"its weights do not fit {type(network).__name__}: {len(missing)} are missing, {missing[0]} first."
        )
    network.save_pretrained(target, max_shard_size="1TB")
    return {}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _refuse(message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
