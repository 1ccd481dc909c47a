"""The API as an OpenAPI 3.1 document, made of what the handlers say of themselves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway.descriptions import ModelDescription
from torchserve_models.gateway.error_answers import error_schema, responses
from torchserve_models.gateway.fixed_schemas import SCHEMAS
from torchserve_models.gateway.known_routes import known_routes
from torchserve_models.gateway.schemas import Schema, Task, query_parameters
from torchserve_models.gateway.settings import MAX_PIXEL_BODY_BYTES, Settings

PREDICTION_ERRORS = (400, 404, 413, 429, 500, 502, 503, 504, 507)
INTRODUCTION = f"""Image classification and summarization on TorchServe.

A request's body has at most {MAX_MESSAGE_BYTES // 2**20} MiB, with pixels as JSON {MAX_PIXEL_BODY_BYTES // 2**20}. Of
several inputs in one request, one that is wrong refuses the request, and the message says which (`inputs[3]: ...`). A
parameter that is unknown, of the wrong type or out of range is an error, never ignored.

Over gRPC: TorchServe's `Predictions` and the Open Inference Protocol's `ModelInfer`, see docs/api.md.
"""


def document(
    models: Sequence[ModelDescription], server: str | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Pure: no I/O. `server` is the address that requests go to; without one, where the document came from."""
    tasks = [Task(model) for model in models]
    paths: dict[str, Any] = {}
    schemas: dict[str, Schema] = {"Error": error_schema(), **SCHEMAS}
    for model, task in zip(models, tasks, strict=True):
        schemas |= _own_schemas(task) if task.known else {}
        paths |= _predictions(task) | _open_inference(model, task)
    paths |= known_routes(tasks, settings or Settings(), errors(PREDICTION_ERRORS)) | _server_routes()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models on TorchServe", "version": "1", "description": INTRODUCTION},
        **({"servers": [{"url": server}]} if server else {}),
        "tags": [
            *({"name": task.name, "description": _limits(task)} for task in tasks),
            {"name": "known routes", "description": "Routes that other servers have, onto the models here."},
            {"name": "server", "description": "Health and metadata of the whole server."},
        ],
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses()},
    }


def errors(codes: Iterable[int]) -> dict[str, Any]:
    return {str(code): {"$ref": f"#/components/responses/{code}"} for code in codes}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _own_schemas(task: Task) -> dict[str, Schema]:
    return {
        f"{task.name}.Request": task.native(),
        f"{task.name}.Form": task.form(),
        f"{task.name}.Answer": task.answers(),
        f"{task.name}.InferRequest": task.infer_request(),
        f"{task.name}.InferAnswer": task.infer_answer(),
    }


def _predictions(task: Task) -> dict[str, Any]:
    raw: dict[str, Any] = {"schema": task.raw()} | _example(task.example if task.is_text else "")
    form = {"schema": ref(f"{task.name}.Form")}
    content = {task.media_type: raw, "multipart/form-data": form}
    if task.is_text:
        content["application/x-www-form-urlencoded"] = form
    else:
        content["application/octet-stream"] = raw
    content["application/json"] = {"schema": ref(f"{task.name}.Request")} | _example(_native_example(task))
    answer: dict[str, Any] = {"schema": ref(f"{task.name}.Answer") if task.known else {}}
    if "examples" in task.answer:
        value = task.answer["examples"][0]
        answer |= _example(value if task.answer.get("type") == "array" else [value])
    operation = {
        "operationId": f"predict-{task.name}",
        "tags": [task.name],
        "summary": f"Ask {task.name}",
        "description": "The input as the body, as a form's file or field, or in JSON, one or several. "
        f"One version answers at /predictions/{task.name}/VERSION.",
        "parameters": query_parameters(task),
        "requestBody": {"required": True, "content": content if task.known else {"*/*": {"schema": {}}}},
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": answer}},
            **errors(PREDICTION_ERRORS),
        },
    }
    return {f"/predictions/{task.name}": {"post": operation}}


def _open_inference(model: ModelDescription, task: Task) -> dict[str, Any]:
    base = f"/v2/models/{task.name}"
    binary = {
        "description": "With the binary data extension: the JSON, and the tensors' bytes behind it. The header "
        "`Inference-Header-Content-Length` is the JSON's length.",
        "schema": {"type": "string", "format": "binary"},
    }
    infer = {
        "operationId": f"infer-{task.name}",
        "tags": [task.name],
        "summary": f"Open Inference Protocol: ask {task.name}",
        "description": "Outputs come as binary data where `binary_data` or `binary_data_output` asks for it.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ref(f"{task.name}.InferRequest")}
                | _example(_infer_example(task)),
                "application/octet-stream": {"schema": binary["schema"]},
            },
            "description": binary["description"],
        },
        "responses": {
            "200": {
                "description": "The outputs.",
                "content": {
                    "application/json": {"schema": ref(f"{task.name}.InferAnswer")},
                    "application/octet-stream": {"schema": binary["schema"]},
                },
            },
            **errors(PREDICTION_ERRORS),
        },
    }
    found: dict[str, Any] = {f"{base}/infer": {"post": infer}} if task.known else {}
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(model.versions)},
    }
    for path, suffix, own in ((base, "", []), (f"{base}/versions/{{version}}", "-version", [version])):
        found[path] = _get(
            f"metadata-{task.name}{suffix}", task.name, "Metadata", "Inputs, outputs, parameters", own
        )
        found[f"{path}/ready"] = _health(
            f"ready-{task.name}{suffix}", task.name, "Ready", "Whether it answers", own
        )
    return found


def _get(
    operation: str, tag: str, schema: str, summary: str, parameters: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    answer = {"description": summary + ".", "content": {"application/json": {"schema": ref(schema)}}}
    own = {"operationId": operation, "tags": [tag], "summary": summary, "parameters": list(parameters)}
    return {"get": own | {"responses": {"200": answer, **errors((404, 429, 500, 502, 503, 504))}}}


def _health(
    operation: str, tag: str, schema: str, summary: str, parameters: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """No is said with 503, and with the reason."""
    found = _get(operation, tag, schema, summary, parameters)
    either = {"anyOf": [ref(schema), ref("Error")]}
    answer = {"description": "No, and why.", "content": {"application/json": {"schema": either}}}
    found["get"]["responses"]["503"] = answer
    return found


def _server_routes() -> dict[str, Any]:
    return {
        "/v2": _get("server-metadata", "server", "Server", "Name, version and extensions"),
        "/v2/health/live": _health("live", "server", "Live", "Whether the server runs"),
        "/v2/health/ready": _health("ready", "server", "Ready", "Whether every model answers"),
        "/ping": _health("ping", "server", "Ping", "The same in TorchServe's own form"),
    }


def _native_example(task: Task) -> Any:
    if not task.example:
        return None
    numbers = [each for each in task.parameters if "default" in each][:1]
    return {"inputs": task.example, "parameters": {each["name"]: each["default"] for each in numbers}}


def _infer_example(task: Task) -> Any:
    if not (task.example and task.inputs):
        return None
    tensor = task.inputs[0]
    return {
        "id": "1",
        "inputs": [{"name": tensor["name"], "datatype": "BYTES", "shape": [1], "data": [task.example]}],
    }


def _example(value: Any) -> dict[str, Any]:
    return {"examples": {"one": {"value": value}}} if value else {}


def _limits(task: Task) -> str:
    if not task.known:
        return "What it takes is not known: no worker could be asked, or its handler is not one of ours."
    limits = ", ".join(
        f"`{name}` {value}" for name, value in sorted(task.limits.items()) if value is not None
    )
    return f"Limits: {limits}."
