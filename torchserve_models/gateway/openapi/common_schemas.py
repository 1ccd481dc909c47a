"""The JSON Schemas of health and metadata responses, which are the same for every model."""

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_TENSORS: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
_ALTERNATIVES: Schema = {
    "type": "object",
    "description": "`also` lists further accepted datatypes and shapes.",
}
_PARAMETER = _object(
    ("name", "type"),
    name=_STRING,
    type={"enum": ["integer", "number", "boolean", "string"]},
    minimum={"type": "number"},
    maximum={"type": "number"},
    choices={
        "type": "array",
        "description": "All values of a string; additional values of any other parameter.",
    },
    default={
        "description": "The value used if a request does not set one. Absent if it depends on other parameters."
    },
    description=_STRING,
    expected={"type": "string", "description": "A description of the allowed values."},
)

SCHEMAS: dict[str, Schema] = {
    "Live": _object(("live",), live=_BOOLEAN, reason=_STRING),
    "Ready": _object(("ready",), name=_STRING, ready=_BOOLEAN, reason=_STRING),
    "Ping": _object(("status",), status={"enum": ["Healthy", "Unhealthy"]}, reason=_STRING),
    "Server": _object(
        ("name", "version", "extensions"),
        name=_STRING,
        version=_STRING,
        extensions={"type": "array", "items": _STRING},
    ),
    "Tensor": _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype=_STRING,
        shape={"type": "array", "items": {"type": "integer"}, "description": "-1 means any size."},
        parameters=_ALTERNATIVES,
    ),
    "Metadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_STRING,
        versions={"type": "array", "items": _STRING},
        platform=_STRING,
        inputs=_TENSORS,
        outputs=_TENSORS,
        # An empty object if no worker responded.
        parameters={
            "anyOf": [{"type": "array", "items": _PARAMETER}, {"type": "object", "maxProperties": 0}]
        },
    ),
}
