"""JSON Schemas of the answers that are the same for every model: health and metadata."""

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_STRING: Schema = {"type": "string"}
_YES: Schema = {"type": "boolean"}
_TENSORS: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
_ALSO: Schema = {
    "type": "object",
    "description": "`also`: further datatypes and shapes in which it is taken.",
}
_PARAMETER = _object(
    ("name", "type"),
    name=_STRING,
    type={"enum": ["integer", "number", "boolean", "string"]},
    minimum={"type": "number"},
    maximum={"type": "number"},
    choices={"type": "array", "description": "Values beside the type; of a string, all of them."},
    default={"description": "What holds where a request does not say; none where that depends on others."},
    description=_STRING,
    expected={"type": "string", "description": "What it takes, in words."},
)

SCHEMAS: dict[str, Schema] = {
    "Live": _object(("live",), live=_YES, reason=_STRING),
    "Ready": _object(("ready",), name=_STRING, ready=_YES, reason=_STRING),
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
        shape={"type": "array", "items": {"type": "integer"}, "description": "-1 is any size."},
        parameters=_ALSO,
    ),
    "Metadata": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_STRING,
        versions={"type": "array", "items": _STRING},
        platform=_STRING,
        inputs=_TENSORS,
        outputs=_TENSORS,
        # An empty object where no worker could be asked.
        parameters={
            "anyOf": [{"type": "array", "items": _PARAMETER}, {"type": "object", "maxProperties": 0}]
        },
    ),
}
