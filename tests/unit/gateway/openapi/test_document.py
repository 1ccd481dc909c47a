"""The OpenAPI document is valid and matches the handlers' parameters, limits and examples."""

import json
from dataclasses import replace

import jsonschema_rs
import pytest

from handlers.core import errors
from handlers.core.errors import InvalidImage, InvalidParameter
from handlers.core.parameters import Parameter, parse_parameters
from tests.unit.gateway.model_samples import HANDLERS, initialized_handler, model_description
from tests.unit.handlers.sending import HTTP, JSON, OPEN_INFERENCE, send
from torchserve_models.gateway.openapi.compat_operations import PIXELS
from torchserve_models.gateway.openapi.document import build_document
from torchserve_models.gateway.openapi.model_schemas import parameter_schema
from torchserve_models.gateway.request_bodies.pixel_parser import PixelParser
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.upstream.model_descriptions import ModelDescription


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return {name: initialized_handler(name, folder / name) for name in HANDLERS}


@pytest.fixture(scope="module")
def models(handlers):
    return [model_description(name, *handler) for name, handler in handlers.items()]


@pytest.fixture(scope="module")
def openapi(models):
    return build_document([*models, ModelDescription("foreign", ("1",), "1")])


def validator(openapi, schema):
    return jsonschema_rs.validator_for({"components": openapi["components"]} | schema)


def nodes(value):
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def operations(openapi):
    return [
        (method, path, operation)
        for path, item in openapi["paths"].items()
        for method, operation in item.items()
    ]


def test_schemas_and_references_are_valid(openapi):
    assert openapi["openapi"] == "3.1.0"
    json.dumps(openapi, allow_nan=False)
    for schema in openapi["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({"components": openapi["components"]} | schema)
        assert jsonschema_rs.meta.is_valid(schema)
    for node in nodes(openapi):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            target = openapi
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
    names = [operation["operationId"] for _, _, operation in operations(openapi)]
    assert len(names) == len(set(names))


def test_examples_match_their_schemas(openapi):
    count = 0
    for node in nodes(openapi):
        if isinstance(node, dict) and "schema" in node and isinstance(node.get("examples"), dict):
            for example in node["examples"].values():
                validator(openapi, node["schema"]).validate(example["value"])
                count += 1
        elif isinstance(node, dict) and "type" in node and isinstance(node.get("examples"), list):
            for example in node["examples"]:
                validator(openapi, node).validate(example)
                count += 1
    assert count > 30


@pytest.mark.parametrize("name", HANDLERS)
def test_handler_responses_match_the_schemas(openapi, handlers, name):
    """Send the examples as requests; tensors come from the metadata."""
    schemas = openapi["components"]["schemas"]

    def predict(path, headers, **changes):
        content = openapi["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        message = content["examples"]["one"]["value"] | changes
        (response,), statuses = send(
            *handlers[name], ({"body": bytearray(json.dumps(message).encode())}, headers)
        )
        assert statuses == [200]
        return response

    validator(openapi, schemas[f"{name}.Response"]).validate(predict(f"/predictions/{name}", JSON))
    example = model_description(name, *handlers[name]).metadata["example"]
    response = predict(f"/predictions/{name}", JSON, inputs=[example, example])
    assert len(response) == 2
    validator(openapi, schemas[f"{name}.Response"]).validate(response)
    outputs = predict(f"/v2/models/{name}/infer", OPEN_INFERENCE)
    validator(openapi, schemas[f"{name}.InferResponse"]).validate(outputs)
    expected_tensors = [
        (tensor.name, tensor.datatype, len(tensor.shape)) for tensor in HANDLERS[name].output_tensors
    ]
    assert [
        (output["name"], output["datatype"], len(output["shape"])) for output in outputs["outputs"]
    ] == expected_tensors
    (error,), _ = send(*handlers[name], ({"body": bytearray(b"")}, HTTP))
    validator(openapi, schemas["Error"]).validate(error)


def test_error_types_have_examples(openapi):
    examples = {}
    for code, response in openapi["components"]["responses"].items():
        for name, example in response["content"]["application/json"]["examples"].items():
            examples[name, int(code)] = example["value"]
    for name, kind in vars(errors).items():
        is_leaf = (
            isinstance(kind, type) and issubclass(kind, errors.HandlerError) and not kind.__subclasses__()
        )
        assert not is_leaf or examples[name, kind.code]["message"]


def test_models_and_server_have_their_paths(openapi):
    paths = set(openapi["paths"])
    for name in ("resnet-50", "t5-small"):
        assert {f"/predictions/{name}", f"/v2/models/{name}/infer", f"/v2/models/{name}/ready"} <= paths
        assert {f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"} <= paths
    assert {"/predict", "/predict/image_classes", "/predict/text_summarize", "/model"} <= paths
    assert {"/v2", "/v2/health/live", "/v2/health/ready", "/ping", "/predictions/foreign"} <= paths
    assert "/v2/models/foreign/infer" not in paths


def test_parameters_and_limits_match_the_handlers(openapi, models):
    metadata = models[0].metadata
    query = {
        parameter["name"]: parameter["schema"]
        for parameter in openapi["paths"]["/predictions/resnet-50"]["post"]["parameters"]
    }
    assert query["top_k"]["minimum"] == 1
    assert query["function_to_apply"]["enum"] == ["softmax", "sigmoid", "none"]
    (tag,) = [tag for tag in openapi["tags"] if tag["name"] == "resnet-50"]
    assert str(metadata["max_pixels"]) in tag["description"]
    inputs = openapi["components"]["schemas"]["t5-small.Request"]["properties"]["inputs"]
    assert str(models[1].metadata["max_characters"]) in inputs["anyOf"][0]["description"]
    assert str(models[1].metadata["max_items"]) in inputs["description"]


def test_query_parameters_describe_their_range(openapi, models):
    """Check the description, because Swagger UI shows neither the limits nor the alternatives of a schema."""
    expected = {
        parameter["name"]: parameter["expected"]
        for model in models
        for parameter in model.metadata["parameters"]
    }
    expected |= {"min": expected["min_length"], "max": expected["max_length"]}
    paths = (
        "/predictions/resnet-50",
        "/predictions/t5-small",
        "/predict",
        "/predict/image_classes",
        "/model",
    )
    names = set()
    for path in (*paths, "/predict/text_summarize"):
        for parameter in openapi["paths"][path]["post"]["parameters"]:
            if parameter["name"] != "model":
                assert expected[parameter["name"]] in parameter["description"], (path, parameter)
                names.add(parameter["name"])
    assert names == expected.keys()
    assert any(
        "default: 5" in parameter["description"]
        for parameter in openapi["paths"]["/model"]["post"]["parameters"]
    )


def test_compatibility_routes_use_separate_models(models):
    renamed_models = [replace(models[0], name="other"), models[0]]
    settings = GatewaySettings(route_models={"/model": "other", "/predict": "absent"})
    paths = build_document(renamed_models, settings=settings)["paths"]
    assert paths["/model"]["post"]["description"].startswith("Uses other.")
    assert paths["/predict/image_classes"]["post"]["description"].startswith("Uses resnet-50.")
    assert "/predict" not in paths


@pytest.mark.parametrize(
    ("pixels", "fits"),
    [
        ([[1, 3.5]], True),
        ([[True, False]], True),
        ([[[1]]], True),
        ([[[1, 2, 3, 4]]], True),
        ([[[1, 2, 3, 4, 5]]], False),
        ([[[True, True, True]]], False),
        ([[256]], False),
        ([[1, True]], False),
        ([[1], [[1]]], False),
        ([[]], False),
        ([], False),
        ([[[[1, 2, 3]]]], False),
        ([["1"]], False),
    ],
)
def test_pixel_schema_matches_the_parser(pixels, fits):
    assert jsonschema_rs.is_valid(PIXELS, pixels) is fits
    parser = PixelParser()
    parser.feed(json.dumps({"img": pixels}).encode())
    try:
        is_accepted = bool(parser.finish())
    except InvalidImage:
        is_accepted = False
    assert is_accepted is fits


def tensor(**changes):
    return {"name": "image", "datatype": "UINT8", "shape": [1, 2, 3], "data": [0] * 6} | changes


@pytest.mark.parametrize(
    ("inputs", "fits"),
    [
        ([tensor()], True),
        ([tensor(shape=[1, 1, 2, 3], datatype="FP32")], True),
        ([tensor(data=[[[0, 0, 0], [0, 0, 0]]])], True),
        ([tensor(), {"name": "top_k", "datatype": "INT64", "shape": [1], "data": [2]}], True),
        ([{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}], True),
        ([tensor(datatype="UINT16")], False),
        ([tensor(shape=[2, 3])], False),
        ([tensor(data=[-1] * 6)], False),
        ([tensor(name="top_k")], False),
        ([tensor(), tensor()], False),
        ([], False),
    ],
)
def test_infer_request_schema_matches_the_handler(openapi, inputs, fits):
    schema = openapi["components"]["schemas"]["resnet-50.InferRequest"]
    assert validator(openapi, schema).is_valid({"inputs": inputs}) is fits


PARAMETERS = (
    Parameter("whole", int, 1, 3),
    Parameter("number", float, -1, 1),
    Parameter("flag", bool, choices=("never",)),
    Parameter("word", str, choices=("a", "b")),
)
VALUES = [0, 1, 3, 4, -1, 0.5, 1.5, True, False, "never", "a", "c", None, [], {}]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_parameter_schema_matches_the_validation(parameter, value):
    schema = parameter_schema(parameter.as_dict())
    try:
        is_accepted = parse_parameters({parameter.name: value}, [parameter]) != {}
    except InvalidParameter:
        is_accepted = False
    assert jsonschema_rs.is_valid(schema, value) is is_accepted


def test_document_names_the_api_key_if_keys_are_required(models, tmp_path):
    openapi = build_document(models)
    assert "security" not in openapi
    assert "securitySchemes" not in openapi["components"]
    openapi = build_document(models, settings=GatewaySettings(key_file=tmp_path / "keys.json"))
    ((name, scopes),) = openapi["security"][0].items()
    assert scopes == []
    assert openapi["components"]["securitySchemes"] == {name: {"type": "http", "scheme": "bearer"}}
