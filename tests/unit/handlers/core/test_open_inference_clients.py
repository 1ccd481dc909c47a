"""Requests of MLServer's and Triton's clients: codecs and parameters that change nothing."""

import pytest

from tests.unit.handlers.core.echo import PIXELS, image, one, outputs
from tests.unit.handlers.sending import js

MLSERVER = {  # recorded: mlserver 1.7.1, NumpyRequestCodec.encode_request(array).dict()
    "id": None,
    "parameters": {"content_type": "np", "headers": None},
    "inputs": [
        {
            "name": "input-1",
            "shape": [2, 2, 3],
            "datatype": "UINT8",
            "parameters": {"content_type": "np", "headers": None},
            "data": PIXELS.ravel().tolist(),
        }
    ],
    "outputs": None,
}


def test_parameters_of_standard_clients_are_ignored(handler, context):
    expected, _ = one(handler, context, js({"inputs": [image(data=PIXELS.tolist())]}))
    assert one(handler, context, js(MLSERVER)) == (expected, 200)
    headers = {"headers": {"Ce-Id": "7"}}
    assert one(handler, context, js(MLSERVER | {"parameters": headers})) == (expected, 200)
    triton = MLSERVER | {"parameters": {"timeout": 5_000_000, "priority": 1, "binary_data_output": False}}
    assert one(handler, context, js(triton)) == (expected, 200)
    requested = [
        {"name": "total", "parameters": {"content_type": "np", "headers": None, "binary_data": None}}
    ]
    answer, status = one(handler, context, js(MLSERVER | {"outputs": requested}))
    assert (status, outputs(answer)) == (200, {"total": [66.0]})


def hugging_face_input(name, content_type, data):
    """Return an input as the codecs of MLServer's Hugging Face runtime write it (mlserver_huggingface/codecs)."""
    parameters = {"content_type": content_type, "headers": None}
    return {"name": name, "shape": [1], "datatype": "BYTES", "parameters": parameters, "data": [data]}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([hugging_face_input("args", "str", "a text")], ("str é", 6)),
        ([hugging_face_input("args", "raw", "a text")], ("str é", 6)),
        ([hugging_face_input("images", "pillow_image", "/9j/4A==")], ("bytes é", 4)),
        ([hugging_face_input("images", "base64", "/9j/4A==")], ("bytes é", 4)),
        (
            [hugging_face_input("args", "str", "a text"), hugging_face_input("times", "raw", 2)],
            ("str éstr é", 6),
        ),
        (
            [hugging_face_input("args", "str", "a text"), hugging_face_input("share", "raw", 0.5)],
            ("str é0.5", 6),
        ),
    ],
)
@pytest.mark.parametrize("content_type", ["str", "hf"])
def test_mlserver_hugging_face_codecs_are_accepted(handler, context, inputs, expected, content_type):
    message = {"id": None, "parameters": {"content_type": content_type}, "inputs": inputs, "outputs": None}
    answer, status = one(handler, context, js(message))
    assert status == 200, answer
    outputs_by_name = outputs(answer)
    assert (outputs_by_name["description"], outputs_by_name["total"]) == ([expected[0]], [expected[1]])


@pytest.mark.parametrize(
    ("input_tensor", "words"),
    [
        (hugging_face_input("args", "hg_json", '{"a": 1}'), "'content_type' is not adjustable"),
        (hugging_face_input("args", "pillow_image", "no*base64"), "an element is not base64"),
        (hugging_face_input("args", "str", 5), "'5' is not an element of BYTES"),
    ],
)
def test_codecs_that_would_change_the_answer_are_rejected(handler, context, input_tensor, words):
    answer, status = one(handler, context, js({"inputs": [input_tensor]}))
    assert status == 400
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"parameters": {"content_type": "datetime"}},
            "'content_type' is not adjustable: set it to 'np'",
        ),
        ({"parameters": {"headers": "x: 1"}}, "'headers' has no effect, but must be an object"),
        ({"parameters": {"sequence_id": 7}}, "unknown parameter 'sequence_id'"),
        ({"parameters": {"timeout": "soon"}}, "'timeout' has no effect, but must be an integer"),
    ],
)
def test_parameter_that_would_change_the_answer_is_rejected(handler, context, change, words):
    answer, status = one(handler, context, js(MLSERVER | change))
    assert status == 400
    assert words in answer["message"]
