"""JSON Schemas of one model's requests and answers, made of what its handler says of itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torchserve_models.gateway.descriptions import ModelDescription

Schema = dict[str, Any]
NUMBERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")


class Task:
    """A model's own types. Limits on size stand in words: beyond them a request is too large (413), not malformed.

    The fields are those of the handler's description (handlers/core/handler.py).
    """

    def __init__(self, model: ModelDescription) -> None:
        said = model.metadata
        self.name = model.name
        self.known = bool(said.get("inputs"))
        self.parameters: Sequence[Mapping[str, Any]] = said.get("parameters") or ()
        self.fields: Sequence[str] = said.get("fields") or ("data",)
        self.inputs: Sequence[Mapping[str, Any]] = said.get("inputs") or ()
        self.outputs: Sequence[Mapping[str, Any]] = said.get("outputs") or ()
        self.answer: Schema = dict(said.get("answer") or {})
        self.media_type: str = said.get("media_type") or "application/octet-stream"
        self.example: str = said.get("example") or ""
        self.max_items: int | None = said.get("max_items")
        self.max_characters: int | None = said.get("max_characters")
        self.limits = {name: value for name, value in said.items() if name.startswith("max_")}

    @property
    def is_text(self) -> bool:
        return self.media_type.startswith("text/")

    def one_input(self) -> Schema:
        """As a JSON string."""
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

    def raw(self) -> Schema:
        """As the body itself, or as a form's file."""
        if self.is_text:
            return self.one_input()
        return {"type": "string", "format": "binary", "contentMediaType": self.media_type, "minLength": 1}

    def native(self) -> Schema:
        several: Schema = {"type": "array", "items": self.one_input(), "minItems": 1}
        most = f", of at most {self.max_items}" if self.max_items else ""
        return {
            "type": "object",
            "required": ["inputs"],
            "additionalProperties": False,
            "properties": {
                "inputs": {
                    "anyOf": [self.one_input(), several],
                    "description": f"One input, or a list of them{most}.",
                },
                "parameters": self.parameters_object(),
            },
        }

    def form(self) -> Schema:
        """One of the input's fields, and parameters beside it."""
        fields = [field for field in self.fields if field != "inputs"]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {field: self.raw() for field in fields}
            | {str(each["name"]): parameter_schema(each) for each in self.parameters},
            "oneOf": [{"required": [field]} for field in fields],
        }

    def answers(self) -> Schema:
        """Of a request with one input, or several: see `NativeReply`."""
        if not self.answer:
            return {}
        several = {"type": "array", "items": self.answer}
        if self.answer.get("type") != "array":
            return several
        return {"anyOf": [self.answer, several]}

    def parameters_object(self, more: Mapping[str, Schema] | None = None, nested: bool = True) -> Schema:
        """`null` is unset, everywhere in JSON."""
        properties = {str(each["name"]): _or_null(parameter_schema(each)) for each in self.parameters}
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
        """The Open Inference Protocol's; fields that it does not know are passed over, as it asks."""
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
                    "description": "The outputs wanted; all of them where there is no such list.",
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

    def infer_answer(self) -> Schema:
        outputs = [tensor_schema(tensor, _elements(tensor["datatype"])) for tensor in self.outputs]
        return {
            "type": "object",
            "required": ["model_name", "model_version", "id", "outputs"],
            "properties": {
                "model_name": {"type": "string", "examples": [self.name]},
                "model_version": {"type": "string"},
                "id": {"type": "string", "description": "The request's, or empty."},
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
        """A parameter may come as a tensor of one element, the only way through TorchServe's gRPC."""
        kinds = {"integer": "INT64", "number": "FP64", "boolean": "BOOL", "string": "BYTES"}
        return [
            tensor_schema(
                {"name": each["name"], "datatype": kinds[str(each["type"])], "shape": [1]},
                parameter_schema(each),
            )
            for each in self.parameters
            if each["type"] in kinds and not (each.get("choices") and each["type"] != "string")
        ]


def parameter_schema(parameter: Mapping[str, Any]) -> Schema:
    """Of one parameter's metadata; `choices` are values beside the type, or all of a string's."""
    choices = parameter.get("choices")
    if choices and parameter["type"] == "string":
        schema: Schema = {"type": "string", "enum": list(choices)}
    else:
        schema = {"type": parameter["type"]} | _given(
            minimum=parameter.get("minimum"), maximum=parameter.get("maximum")
        )
        if choices:
            schema = {"anyOf": [schema, {"enum": list(choices)}]}
    return schema | _given(default=parameter.get("default"), description=parameter.get("description"))


def query_parameters(task: Task, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """A task's parameters in the query, each with its range in words, which not every viewer makes of the schema.

    `names` are others, as keys, under which a parameter is taken as well.
    """
    by_name = {str(each["name"]): each for each in task.parameters}
    by_name |= {theirs: by_name[ours] for theirs, ours in (names or {}).items() if ours in by_name}
    return [
        {
            "name": name,
            "in": "query",
            "description": _in_words(each),
            # Swagger UI would send a default with each request, and another parameter may rule it out.
            "schema": {
                key: value
                for key, value in parameter_schema(each).items()
                if key not in ("default", "description")
            },
        }
        for name, each in by_name.items()
    ]


def _in_words(parameter: Mapping[str, Any]) -> str:
    parts = [parameter.get("description"), parameter.get("expected")]
    if "default" in parameter:
        parts.append(f"default: {json.dumps(parameter['default'])}")
    return "; ".join(part for part in parts if part)


def tensor_schema(tensor: Mapping[str, Any], elements: Schema) -> Schema:
    """`data` may be flat or nested."""
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
                "description": f"{shape}, where -1 is any size.",
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
    kept = {key: value for key, value in schema.items() if key in ("default", "description")}
    return {
        "anyOf": [{key: value for key, value in schema.items() if key not in kept}, {"type": "null"}]
    } | kept


def _given(**values: Any) -> Schema:
    return {name: value for name, value in values.items() if value is not None}
