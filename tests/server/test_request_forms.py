"""Requests of common HTTP clients, sent directly to TorchServe and through nginx."""

import base64
import json
import subprocess

import grpc
import httpx
import pytest
import requests

from tests.server.fronted import IMAGE, LABEL, error, in_front_of, needs_nginx
from tests.tools import needs
from torchserve_models.client._stubs import (
    inference_pb2,
    inference_pb2_grpc,
    open_inference_grpc_pb2,
    open_inference_grpc_pb2_grpc,
)
from training.reports import draw_example

pytestmark = needs_nginx
TEXT = draw_example(2024, 3)[0] + " The café is closed."
PARAMETERS = {"max_new_tokens": 5, "min_new_tokens": 0, "num_beams": 1}
MESSAGE = json.dumps({"inputs": TEXT, "parameters": PARAMETERS})
JSON_IMAGE = json.dumps({"inputs": base64.b64encode(IMAGE).decode(), "parameters": {"top_k": 1}})
SUMMARIZE, CLASSIFY = "/predictions/t5-small", "/predictions/resnet-50"
FETCH = """
const [url, body] = process.argv.slice(1);
fetch(url, {method: "POST", body}).then(answer => answer.text()).then(text => process.stdout.write(text));
"""


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running


@pytest.fixture(params=["direct", "nginx"])
def url(request, server, front):
    return server.inference if request.param == "direct" else front.url


@pytest.fixture(scope="module")
def short(server):
    """Return the answer to the canonical JSON request."""
    answer = httpx.post(server.inference + SUMMARIZE, json=json.loads(MESSAGE), timeout=60)
    assert answer.status_code == 200
    assert answer.json() != httpx.post(server.inference + SUMMARIZE, json={"inputs": TEXT}, timeout=60).json()
    return answer.json()


@pytest.fixture(scope="module")
def full_answer(server):
    return httpx.post(server.inference + SUMMARIZE, json={"inputs": TEXT}, timeout=60).json()


def post(url, **sent):
    return httpx.post(url, timeout=60, **sent)


@pytest.mark.parametrize(
    "mime",
    [
        None,
        "text/plain;charset=UTF-8",
        "text/json",
        "application/jsonlines",
        "application/json, application/json",
        "application/octet-stream",
    ],
)
def test_json_is_read_under_any_content_type(url, short, mime):
    headers = {"content-type": mime} if mime else {}
    assert post(url + SUMMARIZE, content=MESSAGE, headers=headers).json() == short
    [label] = post(url + CLASSIFY, content=JSON_IMAGE, headers=headers).json()
    assert label["label"] == LABEL


@needs("curl")
def test_json_declared_as_a_form_by_curl_is_parsed_behind_nginx(server, front, short):

    def curl(url, *options):
        done = subprocess.run(["curl", "-sS", "-m", "60", *options, url], capture_output=True, check=True)
        return json.loads(done.stdout)

    assert curl(front.url + SUMMARIZE, "-d", MESSAGE) == short
    refused = curl(server.inference + SUMMARIZE, "-d", MESSAGE)
    assert refused["code"] == 400
    assert "set Content-Type: application/json for JSON" in refused["message"]
    assert curl(server.inference + SUMMARIZE, "--data-binary", "text=AT&T rose.\nMore")["code"] == 400


@needs("node")
def test_fetch_of_node_without_headers_is_answered(url, short):
    command = ["node", "-e", FETCH, url + SUMMARIZE, MESSAGE]
    assert json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout) == short


def test_json_dumped_by_requests_is_read(url, short):
    assert requests.post(url + SUMMARIZE, data=MESSAGE, timeout=60).json() == short
    refused = requests.post(
        url + SUMMARIZE, data=MESSAGE.replace('"num_beams": 1', '"num_beams": 100'), timeout=60
    )
    assert "'num_beams' must be" in error(refused, 400, "InvalidParameter")


def test_json_in_a_form_field_is_read(url, short):
    for files in (
        {"text": (None, MESSAGE, "application/json")},
        {"file": ("a.json", MESSAGE, "application/json")},
    ):
        assert post(url + SUMMARIZE, files=files).json() == short
    assert post(url + SUMMARIZE, data={"text": MESSAGE}).json() == short


def test_json_in_grpc_fields_is_read(server, front, short):
    for address in (server.grpc_inference, front.config.grpc):
        with grpc.insecure_channel(address) as channel:
            predictions = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
            for name in ("data", "text", "body"):
                request = inference_pb2.PredictionsRequest(
                    model_name="t5-small", input={name: MESSAGE.encode()}
                )
                assert json.loads(predictions.Predictions(request, timeout=60).prediction) == short
            infer = open_inference_grpc_pb2.ModelInferRequest(model_name="t5-small")
            tensor = infer.inputs.add(name="text", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(MESSAGE.encode())
            stub = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
            if address == server.grpc_inference:
                answer = stub.ModelInfer(infer, timeout=60)
                assert b"holds JSON" in answer.outputs[0].contents.bytes_contents[0]
            else:
                with pytest.raises(grpc.RpcError, match="holds JSON"):
                    stub.ModelInfer(infer, timeout=60)


def test_open_inference_request_is_answered(url, full_answer):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
    answer = post(url + "/v2/models/t5-small/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["data"] == [full_answer[0]["summary_text"]]
    tensor["data"] = [MESSAGE]
    assert "holds JSON" in post(url + "/v2/models/t5-small/infer", json={"inputs": [tensor]}).json()["error"]


@pytest.mark.parametrize("charset", ["utf-16le", "iso-8859-1", "windows-1252"])
def test_declared_charset_is_decoded(url, front, full_answer, charset):
    content, mime = TEXT.encode(charset), f"text/plain; charset={charset}"
    assert post(url + SUMMARIZE, content=content, headers={"content-type": mime}).json() == full_answer
    form = {"text": ("a.txt", content, mime)}
    assert post(front.url + SUMMARIZE, files=form).json() == full_answer
    if url != front.url:  # TorchServe drops the charset of a part
        error(post(url + SUMMARIZE, files=form), 400, "InvalidText")
    refused = post(url + SUMMARIZE, content=b"x", headers={"content-type": "text/plain; charset=rot13"})
    assert "'rot13' is not known" in error(refused, 400, "InvalidRequest")


TWICE = {
    "field": {"files": [("text", (None, "Rain fell.")), ("text", (None, "Sun shone."))]},
    "file": {"files": [("file", ("a.txt", "Rain fell.")), ("file", ("b.txt", "Sun shone."))]},
    "form field": {"data": {"text": ["Rain fell.", "Sun shone."]}},
    "parameter": {"files": [("text", (None, "x")), ("num_beams", (None, "1")), ("num_beams", (None, "2"))]},
}


@pytest.mark.parametrize("form", TWICE)
def test_duplicate_field_is_rejected(url, form):
    assert "twice" in error(post(url + SUMMARIZE, **TWICE[form]), 400, "InvalidRequest")


def test_duplicate_query_parameter_is_rejected(server, front):
    for route in (server.inference + "/models/t5-small/invoke", front.url + SUMMARIZE):
        refused = post(route + "?num_beams=1&num_beams=2", content=b"Rain.")
        assert "'num_beams' is sent twice" in error(refused, 400, "InvalidRequest")


def test_names_of_control_tokens_are_encoded_as_text(url, full_answer):
    answer = post(url + SUMMARIZE, content=b"</s>", headers={"content-type": "text/plain"})
    assert answer.status_code == 200
    cut = post(url + SUMMARIZE, json={"inputs": TEXT + "</s>"})
    assert cut.status_code == 200


@pytest.mark.parametrize(
    "content", ["text=Rain+fell.&num_beams=1", "[object Object]", "\u200b" + MESSAGE, "%7B%22inputs%22"]
)
def test_misdeclared_body_is_rejected(url, content):
    """The body is a form or a JSON-like object, but is declared as text."""
    error(
        post(url + SUMMARIZE, content=content, headers={"content-type": "text/plain"}), 400, "InvalidRequest"
    )


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("mime", [None, "application/json", "text/plain; charset=iso-8859-1"])
def test_byte_order_mark_decides_the_charset(url, short, full_answer, codec, mime):

    headers = {"content-type": mime} if mime else {}
    assert post(url + SUMMARIZE, content=MESSAGE.encode(codec), headers=headers).json() == short
    if mime != "application/json":
        assert post(url + SUMMARIZE, content=TEXT.encode(codec), headers=headers).json() == full_answer


def test_base64_image_is_classified_in_each_form(server, url):

    inputs = json.loads(JSON_IMAGE)["inputs"]
    for sent in ({"content": inputs}, {"data": {"image": inputs}}, {"files": {"image": (None, inputs)}}):
        assert post(url + CLASSIFY, **sent).json()[0]["label"] == LABEL
    with grpc.insecure_channel(server.grpc_inference) as channel:
        request = inference_pb2.PredictionsRequest(
            model_name=CLASSIFY.rpartition("/")[2], input={"image": inputs.encode()}
        )
        answer = inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60)
    assert json.loads(answer.prediction)[0]["label"] == LABEL
