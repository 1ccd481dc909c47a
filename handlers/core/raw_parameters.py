"""Parameters as a request carries them, before their names and ranges are checked."""

import json
from collections.abc import Mapping
from typing import Any

from handlers.core.body_limits import check_bounds
from handlers.core.errors import InvalidRequest


def joined(some: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Of the query and the body, or of two places of a form: what is said twice would be ignored once.

    Raises InvalidRequest.
    """
    for name in others:
        if name in some:
            raise InvalidRequest(f"'{name[:60]}' is given twice")
    return {**some, **others}


def parameters_field(values: dict[str, Any]) -> dict[str, Any]:
    """A field `parameters` holds a JSON object; the others are parameters themselves."""
    parameters = values.pop("parameters", None)
    if parameters is None:
        return values
    if not isinstance(parameters, dict):
        raise InvalidRequest("the field 'parameters' must be a JSON object of parameters and their values")
    return joined(values, parameters)


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`generate_parameters`, nested as huggingface_hub's client sends them, become parameters like the others."""
    flat = dict(parameters)
    nested = flat.pop("generate_parameters", None)
    if nested is None:
        return flat
    if not isinstance(nested, dict):
        raise InvalidRequest("'generate_parameters' must be an object")
    for name in nested:
        if name in flat:
            raise InvalidRequest(f"'{name[:60]}' is given twice: in 'generate_parameters' and beside it")
    return flat | nested


def scalar(name: str, value: Any) -> Any:
    """A form field's text as JSON reads it (`3`, `0.5`, `true`, `{...}`), else, and for `null`, as it is."""
    if not isinstance(value, str):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"the field '{name[:60]}' is not UTF-8 text") from None
    if value.lstrip()[:1] in ("[", "{"):
        check_bounds(value, takes_numbers=False)
    try:
        found = json.loads(value, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return value
    return value if found is None else found


def refuse_constant(name: str) -> Any:
    """For `json.loads`: NaN and Infinity are not JSON. Raises ValueError."""
    raise ValueError(f"{name} is not a number")
