"""Build the JSON Schemas of a model's requests and responses from its handler's metadata."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torchserve_models.gateway.upstream.model_descriptions import ModelDescription

Schema = dict[str, Any]


class ModelSchemas:
    """The schemas of one model.

    Size limits are only part of the descriptions, because a request that exceeds them is not malformed but too large
    (413). The attributes are those of the handler's metadata (handlers/core/handler.py).
    """

    def __init__(self, model: ModelDescription) -> None:
        metadata = model.metadata
        self.name = model.name
        self.has_metadata = bool(metadata.get("inputs"))
        self.parameters: Sequence[Mapping[str, Any]] = metadata.get("parameters") or ()
        self.fields: Sequence[str] = metadata.get("fields") or ("data",)
        self.inputs: Sequence[Mapping[str, Any]] = metadata.get("inputs") or ()
        self.outputs: Sequence[Mapping[str, Any]] = metadata.get("outputs") or ()
        self.output_schema: Schema = dict(metadata.get("answer") or {})
        self.media_type: str = metadata.get("media_type") or "application/octet-stream"
        self.example: str = metadata.get("example") or ""
        self.max_items: int | None = metadata.get("max_items")
        self.max_characters: int | None = metadata.get("max_characters")
        self.limits = {name: value for name, value in metadata.items() if name.startswith("max_")}

    @property
    def is_text(self) -> bool:
        return self.media_type.startswith("text/")

    def one_input(self) -> Schema:
        """Return the schema of an input as a JSON string."""
        if not self.is_text:
            return {
                "type": "string",
                "contentEncoding": "base64",
                "contentMediaType": self.media_type,
                "minLength": 1,
            }
        text: Schema = {"type": "string", "minLength": 1}
        return text | (
            {"description": f"At most {self.max_characters} characters."} if self.max_characters else {}
        )

    def raw_input(self) -> Schema:
        """Return the schema of an input that is sent as a request body or as a file in a form."""
        if self.is_text:
            return self.one_input()
        return {"type": "string", "format": "binary", "contentMediaType": self.media_type, "minLength": 1}

    def native_request(self) -> Schema:
        """Return the schema of a JSON request to /predictions."""
        inputs: Schema = {"type": "array", "items": self.one_input(), "minItems": 1}
        limit = f" with at most {self.max_items} elements" if self.max_items else ""
        return {
            "type": "object",
            "required": ["inputs"],
            "additionalProperties": False,
            "properties": {
                "inputs": {
                    "anyOf": [self.one_input(), inputs],
                    "description": f"One input, or a list of inputs{limit}.",
                },
                "parameters": self.parameters_object(),
            },
        }

    def form_request(self) -> Schema:
        """Return the schema of a form with one input field and any parameters."""
        fields = [field for field in self.fields if field != "inputs"]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {field: self.raw_input() for field in fields}
            | {str(parameter["name"]): parameter_schema(parameter) for parameter in self.parameters},
            "oneOf": [{"required": [field]} for field in fields],
        }

    def native_response(self) -> Schema:
        """Return the schema of a response to one or several inputs, see `NativeEncoder`."""
        if not self.output_schema:
            return {}
        outputs = {"type": "array", "items": self.output_schema}
        if self.output_schema.get("type") != "array":
            return outputs
        return {"anyOf": [self.output_schema, outputs]}

    def parameters_object(self, more: Mapping[str, Schema] | None = None, nested: bool = True) -> Schema:
        """Return the schema of the object `parameters`. In JSON, `null` leaves a parameter unset.

        Args:
            more: Schemas of further parameters, by name.
            nested: Whether the object may contain `generate_parameters`.
        """
        properties = {
            str(parameter["name"]): _or_null(parameter_schema(parameter)) for parameter in self.parameters
        }
        if nested:
            properties["generate_parameters"] = self.parameters_object(nested=False) | {
                "description": "Parameters as huggingface_hub's client nests them."
            }
        return {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": properties | dict(more or {}),
        }

    def infer_request(self) -> Schema:
        """Return the schema of an Open Inference request. Unknown fields are ignored, as the protocol requires."""
        outputs = (
            {"type": "string", "enum": [tensor["name"] for tensor in self.outputs]} if self.outputs else {}
        )
        flag = {"type": ["boolean", "null"]}
        return {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": ["string", "null"]},
                "parameters": self.parameters_object({"binary_data_output": flag}),
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [*self._input_tensors(), *self._parameter_tensors()]},
                    "contains": {"properties": {"name": {"enum": list(self.fields)}}},
                    "minContains": 1,
                    "maxContains": 1,
                },
                "outputs": {
                    "type": ["array", "null"],
                    "description": "The requested outputs. Without this list, all outputs are returned.",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": outputs,
                            "parameters": {
                                "type": ["object", "null"],
                                "additionalProperties": False,
                                "properties": {"binary_data": flag},
                            },
                        },
                    },
                },
            },
        }

    def infer_response(self) -> Schema:
        """Return the schema of an Open Inference response."""
        outputs = [tensor_schema(tensor, _elements(tensor["datatype"])) for tensor in self.outputs]
        return {
            "type": "object",
            "required": ["model_name", "model_version", "id", "outputs"],
            "properties": {
                "model_name": {"type": "string", "examples": [self.name]},
                "model_version": {"type": "string"},
                "id": {"type": "string", "description": "The request's id, or an empty string."},
                "outputs": {"type": "array", "items": {"anyOf": outputs} if outputs else {"type": "object"}},
            },
        }

    def _input_tensors(self) -> list[Schema]:
        tensors = []
        for tensor in self.inputs:
            also = (tensor.get("parameters") or {}).get("also") or ()
            for form in (tensor, *also):
                elements = self.one_input() if form["datatype"] == "BYTES" else _elements(form["datatype"])
                tensors.append(tensor_schema({"name": tensor["name"]} | dict(form), elements))
        return tensors

    def _parameter_tensors(self) -> list[Schema]:
        """Return the schemas of parameters as one-element tensors, the only form in TorchServe's gRPC service."""
        datatypes = {"integer": "INT64", "number": "FP64", "boolean": "BOOL", "string": "BYTES"}
        return [
            tensor_schema(
                {"name": parameter["name"], "datatype": datatypes[str(parameter["type"])], "shape": [1]},
                parameter_schema(parameter),
            )
            for parameter in self.parameters
            if parameter["type"] in datatypes
            and not (parameter.get("choices") and parameter["type"] != "string")
        ]


def parameter_schema(parameter: Mapping[str, Any]) -> Schema:
    """Return the schema of a parameter from its metadata.

    `choices` lists all values of a string parameter, and additional values of any other parameter.
    """
    choices = parameter.get("choices")
    if choices and parameter["type"] == "string":
        schema: Schema = {"type": "string", "enum": list(choices)}
    else:
        schema = {"type": parameter["type"]} | _without_none(
            minimum=parameter.get("minimum"), maximum=parameter.get("maximum")
        )
        if choices:
            schema = {"anyOf": [schema, {"enum": list(choices)}]}
    return schema | _without_none(default=parameter.get("default"), description=parameter.get("description"))


def query_parameters(model: ModelSchemas, aliases: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return a model's query parameters.

    Each description states the parameter's range, because not every viewer shows the limits of a schema.

    Args:
        model: The model.
        aliases: Further names of parameters: the parameter's name by alias.
    """
    by_name = {str(parameter["name"]): parameter for parameter in model.parameters}
    by_name |= {alias: by_name[name] for alias, name in (aliases or {}).items() if name in by_name}
    return [
        {
            "name": name,
            "in": "query",
            "description": _describe(parameter),
            # Swagger UI would send a default with each request, even if it conflicts with another parameter.
            "schema": {
                key: value
                for key, value in parameter_schema(parameter).items()
                if key not in ("default", "description")
            },
        }
        for name, parameter in by_name.items()
    ]


def _describe(parameter: Mapping[str, Any]) -> str:
    parts = [parameter.get("description"), parameter.get("expected")]
    if "default" in parameter:
        parts.append(f"default: {json.dumps(parameter['default'])}")
    return "; ".join(part for part in parts if part)


def tensor_schema(tensor: Mapping[str, Any], elements: Schema) -> Schema:
    """Return the schema of a tensor whose `data` may be flat or nested."""
    shape = list(tensor["shape"])
    size: Schema = {"type": "integer", "minimum": 1}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": tensor["name"]},
            "datatype": {"const": tensor["datatype"]},
            "shape": {
                "type": "array",
                "items": {"const": shape[0]} if len(shape) == 1 and shape[0] > 0 else size,
                "minItems": len(shape),
                "maxItems": len(shape),
                "description": f"{shape}, where -1 means any size.",
                "examples": [[max(length, 1) for length in shape]],
            },
            "data": {"type": "array", "items": {"anyOf": [elements, {"type": "array"}]}},
        },
    }


def _elements(datatype: str) -> Schema:
    if datatype == "BYTES":
        return {"type": "string"}
    if datatype == "BOOL":
        return {"type": "boolean"}
    if datatype.startswith("FP"):
        return {"type": "number"}
    return {"type": "integer"} | ({"minimum": 0} if datatype.startswith("U") else {})


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return schema | {"type": [schema["type"], "null"]}
    annotations = {key: value for key, value in schema.items() if key in ("default", "description")}
    return {
        "anyOf": [{key: value for key, value in schema.items() if key not in annotations}, {"type": "null"}]
    } | annotations


def _without_none(**values: Any) -> Schema:
    return {name: value for name, value in values.items() if value is not None}
