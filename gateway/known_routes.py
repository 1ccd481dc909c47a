"""The routes that people know from other servers, as the API's documentation has them."""

from collections.abc import Sequence
from typing import Any

from gateway.schemas import Schema, Task, parameter_schema
from gateway.settings import Settings

# Their names of a summarizer's parameters, and ours; gateway/translated.py translates them.
LENGTHS = {"min": "min_length", "max": "max_length"}
# One red pixel is enough of an example.
PIXELS = [[[178, 34, 34]]]


def known_routes(tasks: Sequence[Task], settings: Settings, errors: dict[str, Any]) -> dict[str, Any]:
    """Those whose model is served. Keys of `errors` are statuses."""
    known = {task.name: task for task in tasks if task.known}
    paths: dict[str, Any] = {}
    if pictures := known.get(settings.image_model):
        for path, field in (("/predict", "image"), ("/predict/image_classes", "file")):
            body = {"multipart/form-data": {"schema": _form(field, pictures)}}
            paths[path] = _post(
                path, f"Classify the file of the field `{field}`", pictures, body, _query(pictures), errors
            )
        levels = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}
        pixel = levels | {"minItems": 3, "maxItems": 3}
        row = {"type": "array", "minItems": 1, "items": pixel}
        image = {
            "type": "array",
            "minItems": 1,
            "items": row,
            "description": "[height][width][red, green, blue]",
        }
        body = {"application/json": {"schema": _only("img", image), "examples": _one({"img": PIXELS})}}
        paths["/model"] = _post("/model", "Classify pixels", pictures, body, _query(pictures), errors)
    summarizers = {key: known[name] for key, name in settings.summarizers.items() if name in known}
    if summarizers:
        task = next(iter(summarizers.values()))
        several = {"type": "array", "items": task.one_input(), "minItems": 1}
        text = {"anyOf": [task.one_input(), several]}
        body = {"application/json": {"schema": _only("text", text), "examples": _one({"text": task.example})}}
        model = {"name": "model", "in": "query", "schema": {"type": "string", "enum": list(summarizers)}}
        path = "/predict/text_summarize"
        paths[path] = _post(
            path, "Summarize the field `text`", task, body, [model, *_query(task, LENGTHS)], errors
        )
    return paths


def _query(task: Task, names: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """`names` are others under which a parameter is taken as well."""
    by_name = {str(each["name"]): parameter_schema(each) for each in task.parameters}
    by_name |= {theirs: by_name[ours] for theirs, ours in (names or {}).items() if ours in by_name}
    return [
        {
            "name": name,
            "in": "query",
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "default"},
        }
        for name, schema in by_name.items()
    ]


def _form(field: str, task: Task) -> Schema:
    return _only(field, task.raw())


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
