"""Parse JSON messages strictly and select their fields."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from handlers.core.errors import InvalidRequest
from handlers.core.raw_parameters import reject_constant


def parse_json(body: Any, label: str = "the body") -> Any:
    """Parse strict JSON: no NaN, no infinity, and no repeated names in an object.

    Args:
        body: The text, or a list or object that the server has already parsed.
        label: The name of the text in error messages.

    Raises:
        InvalidRequest: The text is not valid JSON.
    """
    if isinstance(body, dict | list):
        return body
    try:
        text = body if isinstance(body, str) else bytes(body).decode("utf-8-sig")
        return json.loads(text, parse_constant=reject_constant, object_pairs_hook=_reject_repeated_names)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{label} is not UTF-8, as JSON must be: byte {error.start} is invalid"
        ) from None
    except RecursionError:
        raise InvalidRequest(f"{label} is JSON that is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"{label} is not valid JSON: {error}") from None


def _reject_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name '{name[:60]}' appears twice in one object")
        result[name] = value
    return result


def select_fields(
    message: Mapping[str, Any], fields: tuple[str, ...], parameter_names: Collection[str]
) -> dict[str, Any]:
    """Return the fields that are not null. Raises InvalidRequest for a field that is not in `fields`."""
    values = {name: value for name, value in message.items() if value is not None}
    for name in values:
        if name in fields:
            continue
        if name in parameter_names:
            raise InvalidRequest(f"'{name}' is a parameter; send it in the field 'parameters'")
        names = "' and '".join(fields[:2])
        raise InvalidRequest(f"unknown field '{name[:60]}'; use the fields '{names}'")
    return values


def get_parameters(message: dict[str, Any]) -> dict[str, Any]:
    """Return the field `parameters`, {} if it is missing. Raises InvalidRequest if it is not an object."""
    parameters = message.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"the field 'parameters' must be an object, not {json_type_name(parameters)}")
    return parameters


_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


def json_type_name(value: Any) -> str:
    """Return the name of a value's JSON type with an article, such as "an object"."""
    return _TYPE_NAMES.get(type(value), "a number")
