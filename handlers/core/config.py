"""The `handler:` section of `model-config.yaml`, typed; a key nobody knows is an error that names the known ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from handlers.core.errors import ConfigurationError

MAX_INTEGER = 2**31 - 1
MAX_THREADS = 1024


@dataclass(frozen=True)
class HandlerConfig:
    """Settings that every handler has."""

    engine: Literal["auto", "torch", "torch-compiled", "openvino", "native"] = "auto"
    """What executes the network."""

    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """`auto` is bf16 where the hardware has it fast, fp32 otherwise; int8 where the archive was calibrated for it."""

    threads: int | Literal["auto"] = "auto"
    """Threads of one worker; `auto` divides the cores that the process may really use by the workers."""

    gpu_memory: float | Literal["auto"] = "auto"
    """Share of one GPU's memory for one worker, above 0 and at most 1; `auto` divides 0.9 by its workers."""

    max_items: int = 32
    """Inputs in one request."""

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any] | None) -> Self:
        """Raises ConfigurationError naming the key, what it takes, and for an unknown key all known ones."""
        if section is None:
            section = {}
        if not isinstance(section, Mapping):
            raise ConfigurationError("model-config.yaml: 'handler' must be a mapping of settings")
        hints = get_type_hints(cls)
        known = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for key, value in section.items():
            if key not in known:
                raise ConfigurationError(
                    f"model-config.yaml: unknown key 'handler.{str(key)[:60]}'; known: {', '.join(sorted(known))}"
                )
            if not _matches(value, hints[key]):
                raise ConfigurationError(
                    f"model-config.yaml: 'handler.{key}' must be {_words(hints[key])}, not {shown(value)}"
                )
            values[key] = _converted(value, hints[key])
        return cls(**values)

    def __post_init__(self) -> None:
        if self.gpu_memory != "auto" and not 0 < self.gpu_memory <= 1:
            raise ConfigurationError(
                "model-config.yaml: 'handler.gpu_memory' must be above 0 and at most 1 (the share of one GPU), "
                f"not {shown(self.gpu_memory)}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int:
                continue
            highest = MAX_THREADS if field.name == "threads" else MAX_INTEGER
            if value < 1:
                raise ConfigurationError(
                    f"model-config.yaml: 'handler.{field.name}' must be at least 1, not {shown(value)}"
                )
            if value > highest:
                raise ConfigurationError(
                    f"model-config.yaml: 'handler.{field.name}' must be at most {highest}, not {shown(value)}"
                )


def server_setting(settings: Mapping[str, Any], key: str, default: float) -> float:
    """A number that TorchServe reads from model-config.yaml as well, above 0; `default` if it is unset or 0.

    Raises:
        ConfigurationError: It is something else.
    """
    value = settings.get(key)
    if value is None:
        return default
    if not _matches(value, float) or value < 0:
        raise ConfigurationError(
            f"model-config.yaml: '{key}' must be a number of at least 0, not {shown(value)}"
        )
    return float(value) or default


def shown(value: Any) -> str:
    """A setting as an error message repeats it."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _converted(value: Any, hint: Any) -> Any:
    """An integer for a setting that is a number becomes a float, which torch insists on."""
    takes_float = hint is float or (get_origin(hint) in (Union, UnionType) and float in get_args(hint))
    return float(value) if takes_float and type(value) is int else value


def _matches(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if origin in (Union, UnionType):
        return any(_matches(value, part) for part in get_args(hint))
    if hint is float:
        if type(value) is int:
            return abs(value) <= MAX_INTEGER
        return type(value) is float and math.isfinite(value)
    if hint is type(None):
        return value is None
    return type(value) is hint


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))
