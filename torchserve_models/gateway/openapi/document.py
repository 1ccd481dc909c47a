"""Build the OpenAPI 3.1 document of the API from the handlers' metadata."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchserve_models.client.settings import MAX_MESSAGE_BYTES
from torchserve_models.gateway.openapi.common_schemas import SCHEMAS
from torchserve_models.gateway.openapi.compat_operations import compat_paths
from torchserve_models.gateway.openapi.error_responses import error_schema, responses_by_status
from torchserve_models.gateway.openapi.model_schemas import ModelSchemas, Schema, query_parameters
from torchserve_models.gateway.settings import MAX_PIXEL_BODY_BYTES, GatewaySettings
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription

PREDICTION_ERRORS = (400, 404, 413, 429, 500, 502, 503, 504, 507)
_KEY_SCHEME = "api-key"
_BEARER = {"type": "http", "scheme": "bearer"}
INTRODUCTION = f"""Image classification and summarization on TorchServe.

A request body may have up to {MAX_MESSAGE_BYTES // 2**20} MiB, or {MAX_PIXEL_BODY_BYTES // 2**20} MiB for pixels as
JSON. If one of several inputs is invalid, the whole request is rejected, and the message names the input
(`inputs[3]: ...`). Parameters that are unknown, of the wrong type or out of range are errors; they are never ignored.

gRPC offers TorchServe's `Predictions` and the Open Inference Protocol's `ModelInfer`, see docs/api.md.
"""


def build_document(
    descriptions: Sequence[ModelDescription],
    server: str | None = None,
    settings: GatewaySettings | None = None,
) -> dict[str, Any]:
    """Return the document.

    Args:
        descriptions: The registered models.
        server: The URL of the API; without one, it is the origin of the document.
        settings: Assigns models to the compatibility routes, and tells whether requests need an API key.
    """
    settings = settings or GatewaySettings()
    models = [ModelSchemas(description) for description in descriptions]
    paths: dict[str, Any] = {}
    schemas: dict[str, Schema] = {"Error": error_schema(), **SCHEMAS}
    for description, model in zip(descriptions, models, strict=True):
        schemas |= _schemas_of(model) if model.has_metadata else {}
        paths |= _predictions(model) | _open_inference(description.versions, model)
    paths |= compat_paths(models, settings, errors(PREDICTION_ERRORS)) | _server_routes()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Models on TorchServe", "version": "1", "description": INTRODUCTION},
        **({"servers": [{"url": server}]} if server else {}),
        "tags": [
            *({"name": model.name, "description": _limits(model)} for model in models),
            {"name": "compatibility routes", "description": "Routes of other servers for the same models."},
            {"name": "server", "description": "Health and metadata of the whole server."},
        ],
        "paths": paths,
        **({"security": [{_KEY_SCHEME: []}]} if settings.key_file else {}),
        "components": {
            "schemas": schemas,
            "responses": responses_by_status(),
            **({"securitySchemes": {_KEY_SCHEME: _BEARER}} if settings.key_file else {}),
        },
    }


def errors(codes: Iterable[int]) -> dict[str, Any]:
    """Return references to the responses with these statuses."""
    return {str(code): {"$ref": f"#/components/responses/{code}"} for code in codes}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas_of(model: ModelSchemas) -> dict[str, Schema]:
    return {
        f"{model.name}.Request": model.native_request(),
        f"{model.name}.Form": model.form_request(),
        f"{model.name}.Response": model.native_response(),
        f"{model.name}.InferRequest": model.infer_request(),
        f"{model.name}.InferResponse": model.infer_response(),
    }


def _predictions(model: ModelSchemas) -> dict[str, Any]:
    raw: dict[str, Any] = {"schema": model.raw_input()} | _example(model.example if model.is_text else "")
    form = {"schema": ref(f"{model.name}.Form")}
    content = {model.media_type: raw, "multipart/form-data": form}
    if model.is_text:
        content["application/x-www-form-urlencoded"] = form
    else:
        content["application/octet-stream"] = raw
    content["application/json"] = {"schema": ref(f"{model.name}.Request")} | _example(_native_example(model))
    response: dict[str, Any] = {"schema": ref(f"{model.name}.Response") if model.has_metadata else {}}
    if "examples" in model.output_schema:
        value = model.output_schema["examples"][0]
        response |= _example(value if model.output_schema.get("type") == "array" else [value])
    operation = {
        "operationId": f"predict-{model.name}",
        "tags": [model.name],
        "summary": f"Predict with {model.name}",
        "description": "Send one input as the body or as a form's file or field, or one or more inputs as JSON. "
        f"To use a certain version, send the request to /predictions/{model.name}/VERSION.",
        "parameters": query_parameters(model),
        "requestBody": {
            "required": True,
            "content": content if model.has_metadata else {"*/*": {"schema": {}}},
        },
        "responses": {
            "200": {"description": "The prediction.", "content": {"application/json": response}},
            **errors(PREDICTION_ERRORS),
        },
    }
    return {f"/predictions/{model.name}": {"post": operation}}


def _open_inference(versions: Sequence[str], model: ModelSchemas) -> dict[str, Any]:
    base = f"/v2/models/{model.name}"
    binary = {
        "description": "With the binary data extension, the tensors' bytes follow the JSON. The header "
        "`Inference-Header-Content-Length` is the length of the JSON.",
        "schema": {"type": "string", "format": "binary"},
    }
    infer = {
        "operationId": f"infer-{model.name}",
        "tags": [model.name],
        "summary": f"Predict with {model.name} by the Open Inference Protocol",
        "description": "Outputs are binary data if `binary_data` or `binary_data_output` requests it.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ref(f"{model.name}.InferRequest")}
                | _example(_infer_example(model)),
                "application/octet-stream": {"schema": binary["schema"]},
            },
            "description": binary["description"],
        },
        "responses": {
            "200": {
                "description": "The outputs.",
                "content": {
                    "application/json": {"schema": ref(f"{model.name}.InferResponse")},
                    "application/octet-stream": {"schema": binary["schema"]},
                },
            },
            **errors(PREDICTION_ERRORS),
        },
    }
    paths: dict[str, Any] = {f"{base}/infer": {"post": infer}} if model.has_metadata else {}
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(versions)},
    }
    for path, suffix, parameters in (
        (base, "", []),
        (f"{base}/versions/{{version}}", "-version", [version]),
    ):
        paths[path] = _get(
            f"metadata-{model.name}{suffix}",
            model.name,
            "Metadata",
            "Inputs, outputs, parameters",
            parameters,
        )
        paths[f"{path}/ready"] = _health(
            f"ready-{model.name}{suffix}", model.name, "Ready", "Whether the model is ready", parameters
        )
    return paths


def _get(
    operation: str, tag: str, schema: str, summary: str, parameters: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a GET operation."""
    success = {"description": summary + ".", "content": {"application/json": {"schema": ref(schema)}}}
    return {
        "get": {
            "operationId": operation,
            "tags": [tag],
            "summary": summary,
            "parameters": list(parameters),
            "responses": {"200": success, **errors((404, 429, 500, 502, 503, 504))},
        }
    }


def _health(
    operation: str, tag: str, schema: str, summary: str, parameters: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a GET operation that responds 503 with the reason if the server or model is not ready."""
    path = _get(operation, tag, schema, summary, parameters)
    either = {"anyOf": [ref(schema), ref("Error")]}
    path["get"]["responses"]["503"] = {
        "description": "Not ready, with the reason.",
        "content": {"application/json": {"schema": either}},
    }
    return path


def _server_routes() -> dict[str, Any]:
    return {
        "/v2": _get("server-metadata", "server", "Server", "Name, version and extensions"),
        "/v2/health/live": _health("live", "server", "Live", "Whether the server runs"),
        "/v2/health/ready": _health("ready", "server", "Ready", "Whether every model is ready"),
        "/ping": _health("ping", "server", "Ping", "Whether every model is ready, in TorchServe's format"),
    }


def _native_example(model: ModelSchemas) -> Any:
    if not model.example:
        return None
    parameters = [parameter for parameter in model.parameters if "default" in parameter][:1]
    return {
        "inputs": model.example,
        "parameters": {parameter["name"]: parameter["default"] for parameter in parameters},
    }


def _infer_example(model: ModelSchemas) -> Any:
    if not (model.example and model.inputs):
        return None
    tensor = model.inputs[0]
    return {
        "id": "1",
        "inputs": [{"name": tensor["name"], "datatype": "BYTES", "shape": [1], "data": [model.example]}],
    }


def _example(value: Any) -> dict[str, Any]:
    return {"examples": {"one": {"value": value}}} if value else {}


def _limits(model: ModelSchemas) -> str:
    if not model.has_metadata:
        return (
            "The request format is unknown: no worker responded, or the handler is not one of this project."
        )
    limits = ", ".join(
        f"`{name}` {value}" for name, value in sorted(model.limits.items()) if value is not None
    )
    return f"Limits: {limits}."
