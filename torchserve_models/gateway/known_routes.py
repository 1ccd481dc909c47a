"""The routes that people know from other servers, as the API's documentation has them."""

from collections.abc import Sequence
from typing import Any

from torchserve_models.gateway.schemas import Schema, Task, query_parameters
from torchserve_models.gateway.settings import IMAGE_ROUTES, Settings

# Their names of a summarizer's parameters, and ours; gateway/compat_routes.py translates them.
LENGTHS = {"min": "min_length", "max": "max_length"}
FILE_FIELDS = {"/predict": "image", "/predict/image_classes": "file"}
_NUMBER: Schema = {"type": "number", "minimum": 0, "maximum": 255}
_CHANNELS: Schema = {"type": "array", "minItems": 1, "maxItems": 4, "items": _NUMBER}
PIXELS: Schema = {
    "anyOf": [
        {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": pixel}}
        for pixel in (_CHANNELS, _NUMBER, {"type": "boolean"})
    ],
    "description": "[height][width][channels] with 1 (gray), 2 (gray, alpha), 3 (red, green, blue) or 4 channels "
    "(with alpha), or [height][width] of gray levels or booleans. Integers are levels from 0 to 255; floats are, "
    "too, or run from 0 to 1.",
}
# One red pixel is enough of an example.
RED = [[[178, 34, 34]]]


def known_routes(tasks: Sequence[Task], settings: Settings, errors: dict[str, Any]) -> dict[str, Any]:
    """Those whose model is served. Keys of `errors` are statuses."""
    known = {task.name: task for task in tasks if task.known}
    paths: dict[str, Any] = {}
    for path in IMAGE_ROUTES:
        if task := known.get(settings.model_of(path)):
            summary, body = _image_body(path, task)
            paths[path] = _post(path, summary, task, body, query_parameters(task), errors)
    summarizers = {key: known[name] for key, name in settings.summarizers.items() if name in known}
    if summarizers:
        task = next(iter(summarizers.values()))
        several = {"type": "array", "items": task.one_input(), "minItems": 1}
        text = {"anyOf": [task.one_input(), several]}
        body = {"application/json": {"schema": _only("text", text), "examples": _one({"text": task.example})}}
        model = {"name": "model", "in": "query", "schema": {"type": "string", "enum": list(summarizers)}}
        path = "/predict/text_summarize"
        paths[path] = _post(
            path, "Summarize the field `text`", task, body, [model, *query_parameters(task, LENGTHS)], errors
        )
    return paths


def _image_body(path: str, task: Task) -> tuple[str, dict[str, Any]]:
    """What one of IMAGE_ROUTES does, and the body that it takes."""
    if path in FILE_FIELDS:
        field = FILE_FIELDS[path]
        return f"Classify the file of the field `{field}`", {
            "multipart/form-data": {"schema": _only(field, task.raw())}
        }
    return "Classify pixels", {
        "application/json": {"schema": _only("img", PIXELS), "examples": _one({"img": RED})}
    }


def _only(field: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "required": [field],
        "additionalProperties": False,
        "properties": {field: schema},
    }


def _one(value: Any) -> dict[str, Any]:
    return {"one": {"value": value}}


def _post(
    path: str,
    summary: str,
    task: Task,
    content: dict[str, Any],
    parameters: list[dict[str, Any]],
    errors: dict[str, Any],
) -> dict[str, Any]:
    answer = {"schema": {"$ref": f"#/components/schemas/{task.name}.Answer"}}
    operation = {
        "operationId": path.strip("/").replace("/", "-"),
        "tags": ["known routes"],
        "summary": summary,
        "description": f"Answered by {task.name}, as /predictions/{task.name} answers.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": answer}},
            **errors,
        },
    }
    return {"post": operation}
