"""model-config.yaml of an archive, checked as a whole: TorchServe passes over what it does not understand."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from handlers.core.config import HandlerConfig
from handlers.core.errors import ConfigurationError
from handlers.text.config import SummarizerConfig
from handlers.vision.config import VisionConfig
from torchserve_models.packing.errors import BadSource
from torchserve_models.packing.models import Layout, read_yaml
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION, Task

_MAX_INT = 2**31 - 1
"""Java reads these settings as 32-bit integers, and ignores larger ones."""

_HANDLER_CONFIGS: Mapping[str, type[HandlerConfig]] = {
    IMAGE_CLASSIFICATION.name: VisionConfig,
    SUMMARIZATION.name: SummarizerConfig,
}
_AMBIGUOUS = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+)")
"""What YAML 1.1 reads as octal or as sexagesimal: 010 is 8, and 2:00 is 120."""


class ModelConfig(NamedTuple):
    """A file that was checked: its bytes, and what packing has to know of its `handler:` section."""

    content: bytes
    engine: str
    precision: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class _Setting:
    """What a setting of TorchServe may be, and that in words."""

    takes: Callable[[Any], bool]
    words: str


def _integer(least: int) -> _Setting:
    return _Setting(
        lambda value: type(value) is int and least <= value <= _MAX_INT, f"an integer of at least {least}"
    )


def _choice(*choices: str) -> _Setting:
    return _Setting(lambda value: value in choices, " or ".join(map(repr, choices)))


_FLAG = _Setting(lambda value: type(value) is bool, "true or false")
_SETTINGS: Mapping[str, _Setting] = {
    "minWorkers": _integer(0),
    "maxWorkers": _integer(0),
    "batchSize": _integer(1),
    "maxBatchDelay": _integer(1),  # TorchServe takes 0 for its default of 100
    "responseTimeout": _integer(1),
    "startupTimeout": _integer(1),
    "jobQueueSize": _integer(1),
    "maxRetryTimeoutInSec": _integer(0),
    "deviceType": _choice("cpu", "gpu"),
    "deviceIds": _Setting(
        lambda value: (
            isinstance(value, list)
            and len(value) > 0
            and all(type(each) is int and each >= 0 for each in value)
        ),
        "a list of integers of at least 0",
    ),
    "parallelType": _choice("none", "pp", "tp", "pptp", "custom"),
    "parallelLevel": _integer(0),
    "torchrun": _Setting(lambda value: isinstance(value, dict), "a mapping"),
    "clientTimeoutInMills": _Setting(
        lambda value: type(value) is int and value == 0,
        "0: TorchServe drops what waits longer without any answer",
    ),
    "useJobTicket": _FLAG,
    "continuousBatching": _FLAG,
    "sequenceBatching": _FLAG,
    "sequenceMaxIdleMSec": _integer(0),
    "sequenceTimeoutMSec": _integer(0),
    "maxSequenceJobQueueSize": _integer(1),
    "maxNumSequence": _integer(1),
    "asyncCommunication": _Setting(
        lambda value: value is False, "false: TorchServe 0.12 loses answers with it"
    ),
    "useVenv": _FLAG,
}
_HANDLER = "handler"


def read_model_config(name: str, task: Task, layout: Layout) -> ModelConfig:
    """model-config.yaml of a model, its own or the task's default.

    Raises BadSource naming the file, the key and what it may be, for anything that TorchServe or the handler would
    ignore or fail at.
    """
    path = layout.models / name / "model-config.yaml"
    path = path if path.is_file() else task.default_config
    content = read_yaml(path)
    _check_notation(path)
    _check_keys(path, content, task)
    for key, value in content.items():
        setting = _SETTINGS.get(key)
        if setting is not None and not setting.takes(value):
            raise BadSource(f"{path}: {key!r} must be {setting.words}, not {value!r}.")
    _check_workers(path, content)
    section = content.get(_HANDLER)
    kind = _HANDLER_CONFIGS.get(task.name)
    if kind is None:
        if not isinstance(section, Mapping | None):
            raise BadSource(f"{path}: 'handler' must be a mapping of settings, not {section!r}.")
        return ModelConfig(path.read_bytes(), "auto", "auto", section or {})
    try:
        config = kind.from_mapping(section)
    except ConfigurationError as error:
        raise BadSource(f"{path}: {str(error).removeprefix('model-config.yaml: ')}.") from error
    return ModelConfig(path.read_bytes(), config.engine, config.precision, section or {})


def _check_keys(path: Path, content: Mapping[Any, Any], task: Task) -> None:
    """A handler of somebody's own may read keys of its own; those that look like one of TorchServe's are mistakes."""
    known = [*_SETTINGS, _HANDLER]
    for key in content:
        if key in known:
            continue
        close = _closest(str(key), known)
        if close is None and isinstance(key, str) and task.name not in _HANDLER_CONFIGS:
            continue
        if close:
            raise BadSource(f"{path}: unknown key {key!r}; did you mean {close!r}?")
        raise BadSource(f"{path}: unknown key {key!r}; known: {', '.join(known)}.")


def _closest(key: str, known: Sequence[str]) -> str | None:
    """The known key that differs in case, in underscores or in a few letters."""
    plain = {each.lower(): each for each in known}
    close = difflib.get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, 1, 0.8)
    return plain[close[0]] if close else None


def _check_workers(path: Path, content: Mapping[str, Any]) -> None:
    """TorchServe ignores one of these without the other, and both where they are the wrong way round."""
    least, most = content.get("minWorkers"), content.get("maxWorkers")
    if (least is None) != (most is None):
        there, missing = ("maxWorkers", "minWorkers") if least is None else ("minWorkers", "maxWorkers")
        raise BadSource(
            f"{path}: {there!r} needs {missing!r} beside it; TorchServe ignores one without the other."
        )
    if least is not None and most is not None and least > most:
        raise BadSource(f"{path}: 'minWorkers' ({least}) must not be above 'maxWorkers' ({most}).")


def _check_notation(path: Path) -> None:
    """Refuse what YAML reads otherwise than most people do: octal and sexagesimal integers, and a key twice."""
    for mapping in _mappings(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)):
        seen = set()
        for key, value in mapping.value:
            if key.value in seen:
                raise BadSource(f"{path}, line {key.start_mark.line + 1}: {key.value!r} is there twice.")
            seen.add(key.value)
            if value.tag == "tag:yaml.org,2002:int" and _AMBIGUOUS.fullmatch(value.value):
                meaning = yaml.safe_load(value.value)
                raise BadSource(
                    f"{path}, line {value.start_mark.line + 1}: {key.value!r} is {value.value}, which YAML reads as "
                    f"{meaning}; write {meaning}, or the number that you mean without a leading 0 or ':'."
                )


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
