"""The document says what the handlers say: valid, with their parameters and limits, and with examples that fit."""

import json
from dataclasses import replace

import jsonschema_rs
import pytest

from handlers.core import errors
from handlers.core.errors import InvalidImage, InvalidParameter
from handlers.core.parameters import Parameter, parse_parameters
from tests.unit.gateway.served import HANDLERS, described, started
from tests.unit.handlers.sending import HTTP, JSON, OPEN_INFERENCE, send
from torchserve_models.gateway.descriptions import ModelDescription
from torchserve_models.gateway.known_routes import PIXELS
from torchserve_models.gateway.openapi import document
from torchserve_models.gateway.pixels import PixelParser
from torchserve_models.gateway.schemas import parameter_schema
from torchserve_models.gateway.settings import Settings


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return {name: started(name, folder / name) for name in HANDLERS}


@pytest.fixture(scope="module")
def models(handlers):
    return [described(name, *handler) for name, handler in handlers.items()]


@pytest.fixture(scope="module")
def openapi(models):
    return document([*models, ModelDescription("foreign", ("1",), "1")])


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


def test_every_schema_is_json_schema_and_every_reference_leads_somewhere(openapi):
    assert openapi["openapi"] == "3.1.0"
    json.dumps(openapi, allow_nan=False)
    for schema in openapi["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({"components": openapi["components"]} | schema)
        assert jsonschema_rs.meta.is_valid(schema)
    for node in nodes(openapi):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            found = openapi
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
    names = [operation["operationId"] for _, _, operation in operations(openapi)]
    assert len(names) == len(set(names))


def test_every_example_fits_its_schema(openapi):
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
def test_the_handlers_own_answers_fit(openapi, handlers, name):
    """Examples as requests; tensors are those of the metadata."""
    schemas = openapi["components"]["schemas"]

    def ask(path, headers, **changes):
        content = openapi["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        message = content["examples"]["one"]["value"] | changes
        (answer,), statuses = send(
            *handlers[name], ({"body": bytearray(json.dumps(message).encode())}, headers)
        )
        assert statuses == [200]
        return answer

    validator(openapi, schemas[f"{name}.Answer"]).validate(ask(f"/predictions/{name}", JSON))
    example = described(name, *handlers[name]).metadata["example"]
    several = ask(f"/predictions/{name}", JSON, inputs=[example, example])
    assert len(several) == 2
    validator(openapi, schemas[f"{name}.Answer"]).validate(several)
    outputs = ask(f"/v2/models/{name}/infer", OPEN_INFERENCE)
    validator(openapi, schemas[f"{name}.InferAnswer"]).validate(outputs)
    wanted = [(each.name, each.datatype, len(each.shape)) for each in HANDLERS[name].output_tensors]
    assert [(each["name"], each["datatype"], len(each["shape"])) for each in outputs["outputs"]] == wanted
    (error,), _ = send(*handlers[name], ({"body": bytearray(b"")}, HTTP))
    validator(openapi, schemas["Error"]).validate(error)


def test_every_status_has_an_example_of_each_type(openapi):
    said = {}
    for code, response in openapi["components"]["responses"].items():
        for name, example in response["content"]["application/json"]["examples"].items():
            said[name, int(code)] = example["value"]
    for name, kind in vars(errors).items():
        is_leaf = (
            isinstance(kind, type) and issubclass(kind, errors.HandlerError) and not kind.__subclasses__()
        )
        assert not is_leaf or said[name, kind.code]["message"]


def test_paths_of_each_model_and_of_the_server(openapi):
    paths = set(openapi["paths"])
    for name in ("resnet-50", "t5-small"):
        assert {f"/predictions/{name}", f"/v2/models/{name}/infer", f"/v2/models/{name}/ready"} <= paths
        assert {f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"} <= paths
    assert {"/predict", "/predict/image_classes", "/predict/text_summarize", "/model"} <= paths
    assert {"/v2", "/v2/health/live", "/v2/health/ready", "/ping", "/predictions/foreign"} <= paths
    assert "/v2/models/foreign/infer" not in paths


def test_parameters_and_limits_are_the_handlers(openapi, models):
    metadata = models[0].metadata
    query = {
        each["name"]: each["schema"]
        for each in openapi["paths"]["/predictions/resnet-50"]["post"]["parameters"]
    }
    assert query["top_k"]["minimum"] == 1
    assert query["function_to_apply"]["enum"] == ["softmax", "sigmoid", "none"]
    (tag,) = [tag for tag in openapi["tags"] if tag["name"] == "resnet-50"]
    assert str(metadata["max_pixels"]) in tag["description"]
    inputs = openapi["components"]["schemas"]["t5-small.Request"]["properties"]["inputs"]
    assert str(models[1].metadata["max_characters"]) in inputs["anyOf"][0]["description"]
    assert str(models[1].metadata["max_items"]) in inputs["description"]


def test_every_query_parameter_says_its_range(openapi, models):
    """Case 20, in words: Swagger UI shows a description, but neither the schema's limits nor its alternatives."""
    expected = {each["name"]: each["expected"] for model in models for each in model.metadata["parameters"]}
    expected |= {"min": expected["min_length"], "max": expected["max_length"]}
    paths = (
        "/predictions/resnet-50",
        "/predictions/t5-small",
        "/predict",
        "/predict/image_classes",
        "/model",
    )
    seen = set()
    for path in (*paths, "/predict/text_summarize"):
        for each in openapi["paths"][path]["post"]["parameters"]:
            if each["name"] != "model":
                assert expected[each["name"]] in each["description"], (path, each)
                seen.add(each["name"])
    assert seen == expected.keys()
    assert any(
        "default: 5" in each["description"] for each in openapi["paths"]["/model"]["post"]["parameters"]
    )


def test_each_known_route_has_its_own_model(models):
    """Case 20."""
    others = [replace(models[0], name="other"), models[0]]
    settings = Settings(route_models={"/model": "other", "/predict": "absent"})
    paths = document(others, settings=settings)["paths"]
    assert paths["/model"]["post"]["description"].startswith("Answered by other,")
    assert paths["/predict/image_classes"]["post"]["description"].startswith("Answered by resnet-50,")
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
def test_pixels_fit_where_the_gateway_takes_them(pixels, fits):
    assert jsonschema_rs.is_valid(PIXELS, pixels) is fits
    parser = PixelParser()
    parser.feed(json.dumps({"img": pixels}).encode())
    try:
        taken = bool(parser.finish())
    except InvalidImage:
        taken = False
    assert taken is fits


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
def test_infer_takes_what_the_handler_takes(openapi, inputs, fits):
    schema = openapi["components"]["schemas"]["resnet-50.InferRequest"]
    assert validator(openapi, schema).is_valid({"inputs": inputs}) is fits


PARAMETERS = (
    Parameter("whole", int, 1, 3),
    Parameter("number", float, -1, 1),
    Parameter("flag", bool, choices=("never",)),
    Parameter("word", str, choices=("a", "b")),
)
VALUES = [0, 1, 3, 4, -1, 0.5, 1.5, True, False, "never", "a", "c", None, [], {}]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda each: each.name)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_schema_takes_exactly_what_the_check_takes(parameter, value):
    schema = parameter_schema(parameter.as_dict())
    try:
        taken = parse_parameters({parameter.name: value}, [parameter]) != {}
    except InvalidParameter:
        taken = False
    assert jsonschema_rs.is_valid(schema, value) is taken
