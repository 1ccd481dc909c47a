"""The tasks of models, and the architectures of transformers that each task supports."""

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.core.errors import ConfigurationError
from handlers.text.architectures import check_architecture
from torchserve_models.packing.errors import InvalidSource, UnknownArchitecture

_DEFAULTS = Path(__file__).parent / "defaults"
_MAX_DIMENSION = 10**8
_TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_TIMM_FETCHES = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
)


@dataclass(frozen=True)
class TaskSpec:
    """A task and the files of its models.

    Attributes:
        name: Name of the task.
        entry: File name of the handler's entry module.
        auto_class: Class of transformers that loads the models.
        mapping: Name of the transformers table that lists the architectures of `auto_class`.
        side_files: Names of the files that a model may have besides configuration and weights.
        needs_one_of: Groups of files; a model needs all files of at least one group.
        side_class: Class of transformers that writes the side files.
    """

    name: str
    entry: str
    auto_class: str
    mapping: str
    side_files: frozenset[str]
    needs_one_of: tuple[tuple[str, ...], ...]
    side_class: str = ""

    @property
    def default_config(self) -> Path:
        """Default model-config.yaml of the task."""
        return _DEFAULTS / f"{self.name}.yaml"


IMAGE_CLASSIFICATION = TaskSpec(
    name="image-classification",
    entry="image_classifier.py",
    auto_class="AutoModelForImageClassification",
    mapping="MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    side_files=frozenset({"preprocessor_config.json", "processor_config.json"}),
    needs_one_of=(("preprocessor_config.json",), ("processor_config.json",)),
    side_class="AutoImageProcessor",
)

SUMMARIZATION = TaskSpec(
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
            "target_vocab.json",
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

TASKS: Mapping[str, TaskSpec] = {task.name: task for task in (IMAGE_CLASSIFICATION, SUMMARIZATION)}


def task_of(config: Mapping[str, Any], source: str) -> TaskSpec:
    """Return the task of a model according to its config.json.

    Args:
        config: Content of config.json. The weights are not read.
        source: Name of the model's source in error messages.

    Raises:
        UnknownArchitecture: No task supports the architecture.
        InvalidSource: A size in the configuration is impossible.
    """
    _check_sizes(config, source)
    if is_timm(config):
        _check_timm(config, source)
        return IMAGE_CLASSIFICATION
    model_type, architecture = config.get("model_type"), architecture_of(config, source)
    if not isinstance(model_type, str):
        raise UnknownArchitecture(
            f"config.json of {source} has no `model_type`, which transformers needs to load {architecture!r}. Pack "
            f"the "
            "config.json that `save_pretrained(folder)` writes."
        )
    for task in TASKS.values():
        if architecture in _classes(task.mapping).get(model_type, ()):
            if task is SUMMARIZATION:
                _check_architecture(config, source)
            return task
    raise UnknownArchitecture(_explain_unsupported(config, model_type, architecture, source))


def _explain_unsupported(config: Mapping[str, Any], model_type: str, architecture: str, source: str) -> str:
    autos = " or ".join(task.auto_class for task in TASKS.values())
    reason = (
        f"{source} is a {architecture!r} (model_type {model_type!r}), which the installed transformers does not load "
        f"with {autos}."
    )
    known = [name for task in TASKS.values() for name in _classes(task.mapping).get(model_type, ())]
    if "auto_map" in config and not known:
        return f"{reason} The model requires custom code (`auto_map`), which is never run."
    if known:
        return f"{reason} For this model type it loads {', '.join(known)}: choose or train a model with that head."
    return f"{reason} Choose a model made for image classification or for sequence-to-sequence text."


def _check_sizes(config: Any, source: str, name: str = "") -> None:
    """Reject implausibly large sizes in config.json, with which libraries would exhaust the memory."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            _check_sizes(value, source, key)
    elif isinstance(config, list):
        for value in config:
            _check_sizes(value, source, name)
    elif isinstance(config, int) and abs(config) > _MAX_DIMENSION:
        raise InvalidSource(
            f"config.json of {source} has the value {config} for {name!r}; the maximum is {_MAX_DIMENSION}. Correct "
            f"it."
        )


def _check_architecture(config: Mapping[str, Any], source: str) -> None:
    try:
        check_architecture(config, f"config.json of {source}")
    except ConfigurationError as error:
        raise UnknownArchitecture(f"{error}.") from error


def architecture_of(config: Mapping[str, Any], source: str) -> str:
    """Return the first entry of `architectures` in config.json, or `timm:NAME` for a timm model."""
    if is_timm(config):
        return f"timm:{config.get('architecture')}"
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise UnknownArchitecture(
            f"config.json of {source} has no class name in `architectures`. {_suggest_class(config)}"
        )
    return architectures[0]


def _suggest_class(config: Mapping[str, Any]) -> str:
    if "_class_name" in config:
        return "The model is part of a diffusers pipeline, which generates images; such models are not supported."
    if "architecture" in config and "num_classes" in config:
        return (
            "The file has an older timm format. Save the model again with `timm.models.save_for_hf(model, folder, "
            "safe_serialization=True)`."
        )
    known = [
        name
        for task in TASKS.values()
        for name in _classes(task.mapping).get(str(config.get("model_type")), ())
    ]
    example = known[0] if known else "ResNetForImageClassification"
    return f'Add the class of the network, such as "architectures": ["{example}"].'


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return whether config.json has the timm format, with or without the keys that transformers adds."""
    return "pretrained_cfg" in config and config.get("model_type", "timm_wrapper") == "timm_wrapper"


def _check_timm(config: Mapping[str, Any], source: str) -> None:
    """Reject names and arguments that would make timm load files from elsewhere."""
    architecture, arguments = config.get("architecture"), config.get("model_args") or {}
    if not isinstance(architecture, str) or not _TIMM_NAME.fullmatch(architecture):
        raise UnknownArchitecture(
            f"config.json of {source} has `architecture`: {architecture!r}, which is not a timm model name."
        )
    if not isinstance(arguments, Mapping) or _TIMM_FETCHES.intersection(arguments):
        raise UnknownArchitecture(
            f"config.json of {source} has invalid `model_args`: it must be a mapping "
            f"without {', '.join(sorted(_TIMM_FETCHES))}."
        )
    if config.get("num_classes") == 0:
        raise UnknownArchitecture(
            f"{source} has no classifier (num_classes is 0) and outputs only features. Choose a model with a "
            f"classifier."
        )


@functools.cache
def _classes(mapping: str) -> dict[str, tuple[str, ...]]:
    """Return a transformers table that maps a model type to the class names of an auto class.

    The table is parsed from source code, because importing its module imports torch and takes seconds.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise InvalidSource("transformers is not installed; run scripts/setup.")
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == mapping:
            pairs = ast.literal_eval(node.value.args[0]) if isinstance(node.value, ast.Call) else ()
            return {kind: (names,) if isinstance(names, str) else tuple(names) for kind, names in pairs}
    raise InvalidSource(
        f"The installed transformers has no {mapping}; run scripts/setup for the pinned version."
    )
