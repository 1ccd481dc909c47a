"""The two tasks an archive can have, and which architectures of transformers each of them takes."""

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError
from handlers.text.architectures import check_served
from torchserve_models.packing.errors import BadSource, UnknownArchitecture

_DEFAULTS = Path(__file__).parent / "defaults"
_MAX_SIZE = 10**8
_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_TIMM_FETCHES = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
)


@dataclass(frozen=True)
class Task:
    """What packing has to know about a task.

    `side_files` are the files beside configuration and weights that a model of the task may have; each group of
    `needs_one_of` has to be there with all its files in at least one case.
    """

    name: str
    entry: str
    auto_class: str
    mapping: str
    side_files: frozenset[str]
    needs_one_of: tuple[tuple[str, ...], ...]
    side_class: str = ""
    """The class of transformers that writes them."""

    @property
    def default_config(self) -> Path:
        """The model-config.yaml of a model that brings none."""
        return _DEFAULTS / f"{self.name}.yaml"


IMAGE_CLASSIFICATION = Task(
    name="image-classification",
    entry="image_classifier.py",
    auto_class="AutoModelForImageClassification",
    mapping="MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    side_files=frozenset({"preprocessor_config.json", "processor_config.json"}),
    needs_one_of=(("preprocessor_config.json",), ("processor_config.json",)),
    side_class="AutoImageProcessor",
)

SUMMARIZATION = Task(
    name="summarization",
    entry="summarizer.py",
    auto_class="AutoModelForSeq2SeqLM",
    mapping="MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    side_files=frozenset(
        {
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "vocab.json",
            "vocab.txt",
            "merges.txt",
            "spiece.model",
            "sentencepiece.bpe.model",
            "tokenizer.model",
            "source.spm",
            "target.spm",
            "vocab-src.json",
            "vocab-tgt.json",
            "prophetnet.tokenizer",
        }
    ),
    needs_one_of=(
        ("tokenizer.json",),
        ("vocab.json", "merges.txt"),
        ("spiece.model",),
        ("sentencepiece.bpe.model",),
        ("tokenizer.model",),
        ("source.spm", "target.spm", "vocab.json"),
        ("vocab-src.json", "vocab-tgt.json", "merges.txt"),
        ("prophetnet.tokenizer",),
        ("vocab.txt",),
    ),
    side_class="AutoTokenizer",
)

TASKS: Mapping[str, Task] = {task.name: task for task in (IMAGE_CLASSIFICATION, SUMMARIZATION)}


def task_of(config: Mapping[str, Any], source: str) -> Task:
    """The task whose auto class loads this config.json with its head; `source` is named in the error.

    The weights are not looked at. Raises UnknownArchitecture when there is none, BadSource for impossible sizes.
    """
    _check_sizes(config, source)
    if is_timm(config):
        _check_timm(config, source)
        return IMAGE_CLASSIFICATION
    model_type, architecture = config.get("model_type"), architecture_of(config, source)
    if not isinstance(model_type, str):
        raise UnknownArchitecture(
            f"config.json of {source} has no `model_type`, by which transformers finds {architecture!r}; pack the "
            "config.json that `save_pretrained(folder)` writes."
        )
    for task in TASKS.values():
        if architecture in _classes(task.mapping).get(model_type, ()):
            if task is SUMMARIZATION:
                _check_served(config, source)
            return task
    raise UnknownArchitecture(_why_not_loaded(config, model_type, architecture, source))


def _why_not_loaded(config: Mapping[str, Any], model_type: str, architecture: str, source: str) -> str:
    autos = " or ".join(task.auto_class for task in TASKS.values())
    reason = (
        f"{source} is a {architecture!r} (model_type {model_type!r}), which the installed transformers does not load "
        f"with {autos}."
    )
    known = [name for task in TASKS.values() for name in _classes(task.mapping).get(model_type, ())]
    if "auto_map" in config and not known:
        return f"{reason} It brings code of its own (`auto_map`), which is never run."
    if known:
        return f"{reason} Of that type it loads {', '.join(known)}: choose or train a model with that head."
    return f"{reason} Choose a model made for image classification or for sequence-to-sequence text."


def _check_sizes(config: Any, source: str, name: str = "") -> None:
    """Libraries would fill the memory with as many labels, layers or rows as config.json says."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            _check_sizes(value, source, key)
    elif isinstance(config, list):
        for value in config:
            _check_sizes(value, source, name)
    elif isinstance(config, int) and abs(config) > _MAX_SIZE:
        raise BadSource(f"config.json of {source} has {config} in {name!r}, which no model has; correct it.")


def _check_served(config: Mapping[str, Any], source: str) -> None:
    try:
        check_served(config, f"config.json of {source}")
    except ConfigurationError as error:
        raise UnknownArchitecture(f"{error}.") from error


def architecture_of(config: Mapping[str, Any], source: str) -> str:
    """The class name that config.json gives, the first of `architectures`; of timm's, its own name of the network."""
    if is_timm(config):
        return f"timm:{config.get('architecture')}"
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise UnknownArchitecture(
            f"config.json of {source} names no class in `architectures`. {_way_to_class(config)}"
        )
    return architectures[0]


def _way_to_class(config: Mapping[str, Any]) -> str:
    if "_class_name" in config:
        return "It is a part of a pipeline of diffusers, which makes images."
    if "architecture" in config and "num_classes" in config:
        return (
            "It is in an older format of timm's: save the model again with `timm.models.save_for_hf(model, folder, "
            "safe_serialization=True)`."
        )
    known = [
        name
        for task in TASKS.values()
        for name in _classes(task.mapping).get(str(config.get("model_type")), ())
    ]
    example = known[0] if known else "ResNetForImageClassification"
    return f'Add the network\'s, such as "architectures": ["{example}"].'


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether config.json is in timm's format, with or without what transformers adds when it saves such a model."""
    return "pretrained_cfg" in config and config.get("model_type", "timm_wrapper") == "timm_wrapper"


def _check_timm(config: Mapping[str, Any], source: str) -> None:
    """A name with a scheme would have timm fetch a network from elsewhere, and so would some of the arguments."""
    architecture, arguments = config.get("architecture"), config.get("model_args") or {}
    if not isinstance(architecture, str) or not _TIMM_NAME.fullmatch(architecture):
        raise UnknownArchitecture(
            f"config.json of {source} gives {architecture!r} as `architecture`, which is no name of timm's."
        )
    if not isinstance(arguments, Mapping) or _TIMM_FETCHES.intersection(arguments):
        raise UnknownArchitecture(f"config.json of {source} has `model_args` that timm would load files by.")
    if config.get("num_classes") == 0:
        raise UnknownArchitecture(f"{source} has no classifier (num_classes is 0): it gives features alone.")


@functools.cache
def _classes(mapping: str) -> dict[str, tuple[str, ...]]:
    """One of transformers' tables: model type -> class names that the auto class may build.

    Read from the source of the installed transformers, because importing that module imports torch as well and
    takes seconds, which every pack would pay.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise BadSource("transformers is not installed; run scripts/setup.")
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == mapping:
            pairs = ast.literal_eval(node.value.args[0]) if isinstance(node.value, ast.Call) else ()
            return {kind: (names,) if isinstance(names, str) else tuple(names) for kind, names in pairs}
    raise BadSource(f"The installed transformers has no {mapping}; run scripts/setup for the pinned version.")
