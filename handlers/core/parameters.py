"""Request parameters: their types and ranges, declared once and checked in one place."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidParameter


@dataclass(frozen=True)
class Parameter:
    """One parameter a request may set.

    `low` and `high` are inclusive; `choices` lists further values that are allowed beside `kind`
    (`early_stopping` is a bool or "never"), or, for `str`, all of them. `default` is what holds for a request that
    does not set it; None where that depends on other parameters.
    """

    name: str
    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""
    default: Any = None

    def check(self, value: Any) -> Any:
        """`value` in this parameter's type. Raises InvalidParameter naming the parameter and its range."""
        if any(type(value) is type(choice) and value == choice for choice in self.choices):
            return value
        if not self._has_kind(value):
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {shown(value)}")
        if self.kind is float:
            value = self._finite(value)
        low_ok = self.low is None or value >= self.low
        high_ok = self.high is None or value <= self.high
        if not (low_ok and high_ok):
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {shown(value)}")
        return value

    def expected(self) -> str:
        """What is allowed, in words."""
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
        """For the model's metadata; the names are JSON Schema's, except for `choices` and `expected` (in words)."""
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
            raise InvalidParameter(f"'{self.name}' must be {self.expected()}, not {shown(value)}")
        return number


def shown(value: Any) -> str:
    """A client's value as an error message repeats it: short, and safe to print."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_parameters(raw: Mapping[str, Any], allowed: Sequence[Parameter]) -> dict[str, Any]:
    """The checked values of `raw`; null means unset. Raises InvalidParameter."""
    known = {parameter.name: parameter for parameter in allowed}
    for name in raw:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise InvalidParameter(f"unknown parameter {shown(name)}; this model takes: {names}")
    return {name: known[name].check(value) for name, value in raw.items() if value is not None}
