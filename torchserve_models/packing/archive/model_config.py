"""Strict validation of model-config.yaml, because TorchServe ignores unknown keys and values."""

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
from torchserve_models.packing.errors import InvalidSource
from torchserve_models.packing.models import RepositoryLayout, read_yaml
from torchserve_models.packing.request import Report
from torchserve_models.packing.tasks import IMAGE_CLASSIFICATION, SUMMARIZATION, TaskSpec

_MAX_INT = 2**31 - 1
"""Maximum of integer settings: TorchServe reads them as 32-bit integers and ignores larger values."""

_HANDLER_CONFIGS: Mapping[str, type[HandlerConfig]] = {
    IMAGE_CLASSIFICATION.name: VisionConfig,
    SUMMARIZATION.name: SummarizerConfig,
}
_MIN_COMPILATION_TIMEOUT_S = 600
"""Minimum `startupTimeout` of models that a worker with a GPU compiles while it loads, which takes minutes."""

_DEFAULT_STARTUP_TIMEOUT_S = 120
"""TorchServe's value for models whose configuration does not set `startupTimeout`."""

_AMBIGUOUS = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+)")
"""Integers that YAML 1.1 reads as octal or sexagesimal: 010 is 8, and 2:00 is 120."""


class ModelConfig(NamedTuple):
    """The validated content of a model-config.yaml, and the `handler:` settings that packing uses."""

    content: bytes
    engine: str
    precision: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class _SettingRule:
    """The validation rule of a TorchServe setting, with a description of the allowed values."""

    is_valid: Callable[[Any], bool]
    allowed_values: str


def _integer(least: int) -> _SettingRule:
    return _SettingRule(
        lambda value: type(value) is int and least <= value <= _MAX_INT, f"an integer of at least {least}"
    )


def _choice(*choices: str) -> _SettingRule:
    return _SettingRule(lambda value: value in choices, " or ".join(map(repr, choices)))


_FLAG = _SettingRule(lambda value: type(value) is bool, "true or false")
_SETTINGS: Mapping[str, _SettingRule] = {
    "minWorkers": _integer(0),
    "maxWorkers": _integer(0),
    "batchSize": _integer(1),
    "maxBatchDelay": _integer(1),  # TorchServe replaces 0 with its default of 100
    "responseTimeout": _integer(1),
    "startupTimeout": _integer(1),
    "jobQueueSize": _integer(1),
    "maxRetryTimeoutInSec": _integer(0),
    "deviceType": _choice("cpu", "gpu"),
    "deviceIds": _SettingRule(
        lambda value: (
            isinstance(value, list)
            and len(value) > 0
            and all(type(device_id) is int and device_id >= 0 for device_id in value)
        ),
        "a list of integers of at least 0",
    ),
    "parallelType": _choice("none", "pp", "tp", "pptp", "custom"),
    "parallelLevel": _integer(0),
    "torchrun": _SettingRule(lambda value: isinstance(value, dict), "a mapping"),
    "clientTimeoutInMills": _SettingRule(
        lambda value: type(value) is int and value == 0,
        "0, because TorchServe drops requests that wait longer without a response",
    ),
    "useJobTicket": _FLAG,
    "continuousBatching": _FLAG,
    "sequenceBatching": _FLAG,
    "sequenceMaxIdleMSec": _integer(0),
    "sequenceTimeoutMSec": _integer(0),
    "maxSequenceJobQueueSize": _integer(1),
    "maxNumSequence": _integer(1),
    "asyncCommunication": _SettingRule(
        lambda value: value is False, "false, because TorchServe 0.12 loses responses with it"
    ),
    "useVenv": _FLAG,
}
_HANDLER = "handler"


def read_model_config(name: str, task: TaskSpec, layout: RepositoryLayout, report: Report) -> ModelConfig:
    """Read and validate the model-config.yaml of a model, or the default of its task.

    `report` receives a warning if workers with a GPU may exceed `startupTimeout`.

    Raises:
        InvalidSource: TorchServe or the handler would ignore or reject a setting. The message names the file, the
            key and the allowed values.
    """
    path = layout.models / name / "model-config.yaml"
    path = path if path.is_file() else task.default_config
    content = read_yaml(path)
    _check_notation(path)
    _check_keys(path, content, task)
    for key, value in content.items():
        setting = _SETTINGS.get(key)
        if setting is not None and not setting.is_valid(value):
            raise InvalidSource(f"{path}: {key!r} must be {setting.allowed_values}, not {value!r}.")
    _check_workers(path, content)
    section = content.get(_HANDLER)
    kind = _HANDLER_CONFIGS.get(task.name)
    if kind is None:
        if not isinstance(section, Mapping | None):
            raise InvalidSource(f"{path}: 'handler' must be a mapping of settings, not {section!r}.")
        return ModelConfig(path.read_bytes(), "auto", "auto", section or {})
    try:
        config = kind.from_mapping(section)
    except ConfigurationError as error:
        raise InvalidSource(f"{path}: {str(error).removeprefix('model-config.yaml: ')}.") from error
    timeout = content.get("startupTimeout", _DEFAULT_STARTUP_TIMEOUT_S)
    may_compile_at_load = config.engine == "torch-compiled" and content.get("deviceType") == "gpu"
    if may_compile_at_load and timeout < _MIN_COMPILATION_TIMEOUT_S:
        report(
            f"{name}: WARNING: a worker with a GPU compiles the network for minutes at load, and 'startupTimeout' is "
            f"{timeout} seconds.\n"
            f"  On a machine with a GPU, set it to at least {_MIN_COMPILATION_TIMEOUT_S} in {path}."
        )
    return ModelConfig(path.read_bytes(), config.engine, config.precision, section or {})


def _check_keys(path: Path, content: Mapping[Any, Any], task: TaskSpec) -> None:
    """Reject unknown keys. Custom handlers may add keys that do not resemble TorchServe's."""
    known = [*_SETTINGS, _HANDLER]
    for key in content:
        if key in known:
            continue
        close = _find_closest_key(str(key), known)
        if close is None and isinstance(key, str) and task.name not in _HANDLER_CONFIGS:
            continue
        if close:
            raise InvalidSource(f"{path}: unknown key {key!r}; did you mean {close!r}?")
        raise InvalidSource(f"{path}: unknown key {key!r}; allowed: {', '.join(known)}.")


def _find_closest_key(key: str, known: Sequence[str]) -> str | None:
    """Return a known key that differs from `key` only in case, underscores or a few letters, or None."""
    plain = {known_key.lower(): known_key for known_key in known}
    close = difflib.get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, 1, 0.8)
    return plain[close[0]] if close else None


def _check_workers(path: Path, content: Mapping[str, Any]) -> None:
    """Reject worker counts that TorchServe would ignore: a single one, or a minimum above the maximum."""
    least, most = content.get("minWorkers"), content.get("maxWorkers")
    if (least is None) != (most is None):
        present, missing = ("maxWorkers", "minWorkers") if least is None else ("minWorkers", "maxWorkers")
        raise InvalidSource(
            f"{path}: {present!r} requires {missing!r}; TorchServe ignores a single one of them. Set both."
        )
    if least is not None and most is not None and least > most:
        raise InvalidSource(f"{path}: 'minWorkers' ({least}) must not be above 'maxWorkers' ({most}).")


def _check_notation(path: Path) -> None:
    """Reject duplicate keys, and integers that YAML 1.1 reads as octal or sexagesimal."""
    for mapping in _mappings(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)):
        keys = set()
        for key, value in mapping.value:
            if key.value in keys:
                raise InvalidSource(
                    f"{path}, line {key.start_mark.line + 1}: {key.value!r} is set twice. Remove one of them."
                )
            keys.add(key.value)
            if value.tag == "tag:yaml.org,2002:int" and _AMBIGUOUS.fullmatch(value.value):
                meaning = yaml.safe_load(value.value)
                raise InvalidSource(
                    f"{path}, line {value.start_mark.line + 1}: {key.value!r} is {value.value}, which YAML reads as "
                    f"{meaning}; write the number without a leading 0 or ':'."
                )


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
