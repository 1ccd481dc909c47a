"""The OpenAPI operations of the compatibility routes."""

from collections.abc import Sequence
from typing import Any

from torchserve_models.gateway.openapi.model_schemas import ModelSchemas, Schema, query_parameters
from torchserve_models.gateway.settings import IMAGE_ROUTES, GatewaySettings

# The routes' names for a summarizer's parameters, and the model's names; compat_routes.py translates them.
LENGTH_ALIASES = {"min": "min_length", "max": "max_length"}
FILE_FIELDS = {"/predict": "image", "/predict/image_classes": "file"}
_NUMBER: Schema = {"type": "number", "minimum": 0, "maximum": 255}
_CHANNELS: Schema = {"type": "array", "minItems": 1, "maxItems": 4, "items": _NUMBER}
PIXELS: Schema = {
    "anyOf": [
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": pixel}}
        for pixel in (_CHANNELS, _NUMBER, {"type": "boolean"})
    ],
    "description": "[height][width][channels] with 1 (gray), 2 (gray, alpha), 3 (red, green, blue) or 4 channels "
    "(with alpha), or [height][width] of gray levels or booleans. Integers range from 0 to 255; floats range from "
    "0 to 255 or from 0 to 1.",
}
RED_PIXEL = [[[178, 34, 34]]]


def compat_paths(
    models: Sequence[ModelSchemas], settings: GatewaySettings, errors: dict[str, Any]
) -> dict[str, Any]:
    """Return the paths of the routes whose model is registered.

    Args:
        models: The registered models.
        settings: Assigns models to routes.
        errors: The error responses of every route, by status.
    """
    by_name = {model.name: model for model in models if model.has_metadata}
    paths: dict[str, Any] = {}
    for path in IMAGE_ROUTES:
        if model := by_name.get(settings.model_of(path)):
            summary, body = _image_body(path, model)
            paths[path] = _post(path, summary, model, body, query_parameters(model), errors)
    summarizers = {key: by_name[name] for key, name in settings.summarizers.items() if name in by_name}
    if summarizers:
        model = next(iter(summarizers.values()))
        text_list = {"type": "array", "items": model.one_input(), "minItems": 1}
        text = {"anyOf": [model.one_input(), text_list]}
        body = {
            "application/json": {
                "schema": _object_with_field("text", text),
                "examples": _example({"text": model.example}),
            }
        }
        key = {"name": "model", "in": "query", "schema": {"type": "string", "enum": list(summarizers)}}
        path = "/predict/text_summarize"
        paths[path] = _post(
            path,
            "Summarize the field `text`",
            model,
            body,
            [key, *query_parameters(model, LENGTH_ALIASES)],
            errors,
        )
    return paths


def _image_body(path: str, model: ModelSchemas) -> tuple[str, dict[str, Any]]:
    """Return the summary of one of IMAGE_ROUTES, and its request body."""
    if path in FILE_FIELDS:
        field = FILE_FIELDS[path]
        return f"Classify the file of the field `{field}`", {
            "multipart/form-data": {"schema": _object_with_field(field, model.raw_input())}
        }
    return "Classify pixels", {
        "application/json": {
            "schema": _object_with_field("img", PIXELS),
            "examples": _example({"img": RED_PIXEL}),
        }
    }


def _object_with_field(field: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "required": [field],
        "additionalProperties": False,
        "properties": {field: schema},
    }


def _example(value: Any) -> dict[str, Any]:
    return {"one": {"value": value}}


def _post(
    path: str,
    summary: str,
    model: ModelSchemas,
    content: dict[str, Any],
    parameters: list[dict[str, Any]],
    errors: dict[str, Any],
) -> dict[str, Any]:
    response = {"schema": {"$ref": f"#/components/schemas/{model.name}.Response"}}
    operation = {
        "operationId": path.strip("/").replace("/", "-"),
        "tags": ["compatibility routes"],
        "summary": summary,
        "description": f"Uses {model.name}. The response is the same as that of /predictions/{model.name}.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The prediction.", "content": {"application/json": response}},
            **errors,
        },
    }
    return {"post": operation}
