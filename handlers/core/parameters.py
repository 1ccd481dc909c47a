"""Declare request parameters, and check their types and ranges."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidParameter


@dataclass(frozen=True)
class Parameter:
    """A parameter that a request may set.

    Attributes:
        name: The parameter's name.
        kind: The type of its values.
        low: The minimum; None for no limit.
        high: The maximum; None for no limit.
        choices: For `str`, all allowed values. For other types, additional values (`early_stopping` is a bool or
            "never").
        help: A description.
        default: The value for requests that do not set it; None if it depends on other parameters.
    """

    name: str
    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    default: Any = None

    def check(self, value: Any) -> Any:
        """Check a value and convert it to this parameter's type. Raises InvalidParameter with the allowed values."""
        if any(type(value) is type(choice) and value == choice for choice in self.choices):
            return value
        if not self._has_kind(value):
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {format_value(value)}")
        if self.kind is float:
            value = self._finite(value)
        is_above_low = self.low is None or value >= self.low
        is_below_high = self.high is None or value <= self.high
        if not (is_above_low and is_below_high):
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {format_value(value)}")
        return value

    def expected(self) -> str:
        """Return the allowed values in words."""
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
        words = [] if self.kind is str and self.choices else [names[self.kind]]
        if self.low is not None and self.high is not None:
            words[0] += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            words[0] += f" of at least {self.low:g}"
        elif self.high is not None:
            words[0] += f" of at most {self.high:g}"
        words += [
            repr(choice) if not isinstance(choice, bool) else str(choice).lower() for choice in self.choices
        ]
        return " or ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Return the metadata with keys of JSON Schema, `choices`, and `expected` (the allowed values in words)."""
        types = {int: "integer", float: "number", bool: "boolean", str: "string"}
        values = {
            "name": self.name,
            "type": types[self.kind],
            "minimum": self.low,
            "maximum": self.high,
            "choices": list(self.choices) or None,
            "default": self.default,
            "description": self.help or None,
            "expected": self.expected(),
        }
        return {key: value for key, value in values.items() if value is not None}

    def _has_kind(self, value: Any) -> bool:
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if self.kind is float:
            return isinstance(value, int | float)
        if self.kind is str and self.choices:
            return False
        return isinstance(value, self.kind)

    def _finite(self, value: float) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {format_value(value)}")
        return number


def format_value(value: Any) -> str:
    """Return a client's value as text for error messages, at most 60 characters long and safe to print."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_parameters(raw: Mapping[str, Any], allowed: Sequence[Parameter]) -> dict[str, Any]:
    """Check parameters and return their converted values without nulls. Raises InvalidParameter."""
    known = {parameter.name: parameter for parameter in allowed}
    for name in raw:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise InvalidParameter(f"unknown parameter {format_value(name)}; this model takes: {names}")
    return {name: known[name].check(value) for name, value in raw.items() if value is not None}
