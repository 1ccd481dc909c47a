"""Parse the `handler:` section of `model-config.yaml` into typed settings. Unknown keys are errors."""

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
    """Settings of every handler."""

    engine: Literal["auto", "torch", "torch-compiled", "openvino", "native"] = "auto"
    """Engine that runs the network."""

    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Precision of the network. `auto`: int8 if the archive is calibrated, else bf16 if the hardware computes it
    fast, else fp32."""

    threads: int | Literal["auto"] = "auto"
    """Threads of one worker. `auto`: the cores that the process may use, divided by the number of workers."""

    gpu_memory: float | Literal["auto"] = "auto"
    """Share of a GPU's memory for one worker, above 0 and at most 1. `auto`: 0.9 divided by the GPU's workers."""

    max_items: int = 32
    """Maximum number of inputs in one request."""

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any] | None) -> Self:
        """Return the settings of a mapping.

        Raises:
            ConfigurationError: A key is unknown, or a value has the wrong type or is out of range.
        """
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
                    f"model-config.yaml: 'handler.{key}' must be {_describe_type(hints[key])}, "
                    f"not {format_setting(value)}"
                )
            values[key] = _converted(value, hints[key])
        return cls(**values)

    def __post_init__(self) -> None:
        if self.gpu_memory != "auto" and not 0 < self.gpu_memory <= 1:
            raise ConfigurationError(
                "model-config.yaml: 'handler.gpu_memory' must be above 0 and at most 1 (the share of one GPU), "
                f"not {format_setting(self.gpu_memory)}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int:
                continue
            maximum = MAX_THREADS if field.name == "threads" else MAX_INTEGER
            if not 1 <= value <= maximum:
                limit = "at least 1" if value < 1 else f"at most {maximum}"
                raise ConfigurationError(
                    f"model-config.yaml: 'handler.{field.name}' must be {limit}, not {format_setting(value)}"
                )


def server_setting(settings: Mapping[str, Any], key: str, default: float) -> float:
    """Return a setting of TorchServe in model-config.yaml, which must be a number; `default` if unset or 0.

    Raises:
        ConfigurationError: The value is not a number of at least 0.
    """
    value = settings.get(key)
    if value is None:
        return default
    if not _matches(value, float) or value < 0:
        raise ConfigurationError(
            f"model-config.yaml: '{key}' must be a number of at least 0, not {format_setting(value)}"
        )
    return float(value) or default


def format_setting(value: Any) -> str:
    """Return a setting's value as text for error messages, at most 60 characters long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number with thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _converted(value: Any, hint: Any) -> Any:
    """Convert an integer to a float if the setting is a float, because torch requires floats."""
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


def _describe_type(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if origin in (Union, UnionType):
        return " or ".join(_describe_type(part) for part in get_args(hint))
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))
