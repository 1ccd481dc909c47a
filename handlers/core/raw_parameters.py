"""Collect the parameters of a request. Their names and values are checked later."""

import json
from collections.abc import Mapping
from typing import Any

from handlers.core.body_limits import check_bounds
from handlers.core.errors import InvalidRequest


def merge_parameters(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the parameters of two sources, such as query and body. Raises InvalidRequest if a name repeats."""
    for name in second:
        if name in first:
            raise InvalidRequest(f"'{name[:60]}' is sent twice; send it once")
    return {**first, **second}


def expand_parameters_field(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the field `parameters`, a JSON object, with its fields. All other fields are also parameters.

    Raises InvalidRequest.
    """
    parameters = values.pop("parameters", None)
    if parameters is None:
        return values
    if not isinstance(parameters, dict):
        raise InvalidRequest("the field 'parameters' must be a JSON object of parameters and their values")
    return merge_parameters(values, parameters)


def flatten_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `generate_parameters`, an object that huggingface_hub's client sends, with its fields.

    Raises InvalidRequest.
    """
    flattened = dict(parameters)
    nested = flattened.pop("generate_parameters", None)
    if nested is None:
        return flattened
    if not isinstance(nested, dict):
        raise InvalidRequest("'generate_parameters' must be an object")
    for name in nested:
        if name in flattened:
            raise InvalidRequest(
                f"'{name[:60]}' is sent twice, inside and outside 'generate_parameters'; send it once"
            )
    return flattened | nested


def parse_scalar(name: str, value: Any) -> Any:
    """Parse a form field as JSON (`3`, `0.5`, `true`, `{...}`). Return the text of `null` and of invalid JSON.

    Raises InvalidRequest.
    """
    if not isinstance(value, str):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"the field '{name[:60]}' is not UTF-8 text") from None
    if value.lstrip()[:1] in ("[", "{"):
        check_bounds(value, takes_numbers=False)
    try:
        parsed = json.loads(value, parse_constant=reject_constant)
    except (ValueError, RecursionError):
        return value
    return value if parsed is None else parsed


def reject_constant(name: str) -> Any:
    """Raise ValueError for NaN or Infinity, which JSON does not allow. Use as `parse_constant` of `json.loads`."""
    raise ValueError(f"{name} is not a JSON number")
