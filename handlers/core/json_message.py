"""Parse a JSON message strictly, and take its fields, with errors that a client can act on."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from handlers.core.errors import InvalidRequest
from handlers.core.raw_parameters import refuse_constant


def parse_json(body: Any, label: str = "the body") -> Any:
    """Strict JSON: no NaN, no infinity, no name twice. Raises InvalidRequest, which calls the text `label`.

    A server that is set to decode bodies itself hands on what it found in one.
    """
    if isinstance(body, dict | list):
        return body
    try:
        text = body if isinstance(body, str) else bytes(body).decode("utf-8-sig")
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{label} is not UTF-8, as JSON is: byte {error.start} cannot be read") from None
    except RecursionError:
        raise InvalidRequest(f"{label} is JSON that is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"{label} is not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name '{name[:60]}' appears twice in one object")
        result[name] = value
    return result


def only_fields(
    message: Mapping[str, Any], fields: tuple[str, ...], parameter_names: Collection[str]
) -> dict[str, Any]:
    """The fields that are not null. Raises InvalidRequest for one that is none of `fields`."""
    given = {name: value for name, value in message.items() if value is not None}
    for name in given:
        if name in fields:
            continue
        if name in parameter_names:
            raise InvalidRequest(f"'{name}' is a parameter; it goes into the field 'parameters'")
        names = "' and '".join(fields[:2])
        raise InvalidRequest(f"unknown field '{name[:60]}'; the body has '{names}'")
    return given


def parameters_of(message: dict[str, Any]) -> dict[str, Any]:
    parameters = message.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"the field 'parameters' must be an object, not {kind_of(parameters)}")
    return parameters


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    return _KINDS.get(type(value), "a number")
