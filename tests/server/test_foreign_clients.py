"""Unmodified third-party clients: Hugging Face, MLServer, Triton, and gRPC stubs of the published protos."""

import asyncio
import base64
import importlib.resources
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import AsyncInferenceClient, InferenceClient, InferenceTimeoutError
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from PIL import Image

from tests.conftest import ROOT
from tests.server.fronted import in_front_of, needs_nginx
from torchserve_models.client import Client, Conflict
from training.images import draw_image
from training.reports import draw_example

SUMMARIZERS = ("t5-small", "bart-large-cnn")
# Hugging Face's async client sends bytes in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LABEL, IMAGE = draw_image(2024, 5)
TEXT, SUMMARY = draw_example(2024, 3)


@pytest.fixture(params=["sync", "async"])
def call_model(request, server):
    """Return a function that calls a method of Hugging Face's client for a model of the server."""

    async def call(model, method, *arguments, timeout=60.0, **options):
        url = f"{server.inference}/predictions/{model}"
        if request.param == "sync":
            call = getattr(InferenceClient(model=url, timeout=timeout), method)
            return await asyncio.to_thread(call, *arguments, **options)
        async with AsyncInferenceClient(model=url, timeout=timeout) as connection:
            return await getattr(connection, method)(*arguments, **options)

    return call


async def test_huggingface_client_classifies_images_in_every_form(call_model, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(IMAGE)
    for form in (IMAGE, str(photo), photo):
        answer = await call_model("resnet-50", "image_classification", form)
        assert len(answer) == 5
        assert answer[0].label == LABEL
        assert answer[0].score > answer[1].score


async def test_huggingface_client_passes_image_parameters(call_model):
    answer = await call_model(
        "resnet-50", "image_classification", IMAGE, top_k=2, function_to_apply="sigmoid"
    )
    assert len(answer) == 2
    assert answer[0].label == LABEL


@pytest.mark.parametrize("model", SUMMARIZERS)
async def test_huggingface_client_summarizes(call_model, model):
    assert (await call_model(model, "summarization", TEXT)).summary_text == SUMMARY
    short = await call_model(
        model,
        "summarization",
        TEXT,
        generate_parameters={"max_new_tokens": 5, "min_length": 1, "num_beams": 2},
        clean_up_tokenization_spaces=True,
        truncation="longest_first",
    )
    assert 0 < len(short.summary_text) < len(SUMMARY)


async def test_huggingface_client_gets_the_error_message(call_model):
    with pytest.raises(BadRequestError, match="the file is not in a supported image format"):
        await call_model("resnet-50", "image_classification", b"no image")
    with pytest.raises(BadRequestError, match="'top_k' must be an integer of at least 1"):
        await call_model("resnet-50", "image_classification", IMAGE, top_k=0)
    with pytest.raises(BadRequestError, match="'temperature' is not adjustable"):
        await call_model("t5-small", "summarization", TEXT, generate_parameters={"temperature": 2.0})
    with pytest.raises(HfHubHTTPError, match="413") as too_long:
        await call_model("t5-small", "summarization", TEXT * 30, truncation="do_not_truncate")
    assert "'truncation' is off" in str(too_long.value)
    with pytest.raises(HfHubHTTPError, match="404"):
        await call_model("nobody", "summarization", TEXT)


async def test_huggingface_client_respects_its_timeout(call_model):
    with pytest.raises(InferenceTimeoutError):
        await call_model("t5-small", "summarization", TEXT, timeout=0.001)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """Generate stubs from the protos in TorchServe's jar, in a folder without code of this project."""
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("stubs")
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    names = ("inference.proto", "management.proto", "open_inference_grpc.proto")
    with zipfile.ZipFile(Path(spec.origin).parent / "frontend" / "model-server.jar") as jar:
        for name in (*names, "google/rpc/status.proto"):
            jar.extract(name, folder)
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    options = [f"--proto_path={folder}", f"--proto_path={well_known}"]
    options += [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *options, *names]) == 0
    return folder


FOREIGN = """
import json
import sys

import grpc
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import open_inference_grpc_pb2 as open_inference
import open_inference_grpc_pb2_grpc
from google.protobuf.empty_pb2 import Empty

inference_address, management_address = sys.argv[1:]
image, text = open("image.jpg", "rb").read(), open("report.txt", "rb").read()
said = {}

with grpc.insecure_channel(inference_address) as channel:
    stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
    said["health"] = json.loads(stub.Ping(Empty()).health)["status"]

    def predict(model, **fields):
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        return json.loads(stub.Predictions(request, timeout=60).prediction)

    said["labels"] = predict("resnet-50", image=image, top_k=b"2")
    said["summary"] = predict("t5-small", text=text)
    said["error"] = predict("resnet-50", image=b"no image")
    try:
        predict("nobody", text=text)
    except grpc.RpcError as error:
        said["unknown"] = error.details()
    request = inference_pb2.PredictionsRequest(model_name="t5-small", input={"text": text})
    said["streamed"] = [json.loads(part.prediction) for part in stub.StreamPredictions(request, timeout=60)]
    said["after"] = predict("t5-small", text=text)

    oip = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
    said["live"] = oip.ServerLive(open_inference.ServerLiveRequest()).live
    said["ready"] = oip.ServerReady(open_inference.ServerReadyRequest()).ready
    said["model ready"] = oip.ModelReady(open_inference.ModelReadyRequest(name="t5-small")).ready

    def infer(model, name, content):
        request = open_inference.ModelInferRequest(model_name=model, id="7")
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(content)
        answer = oip.ModelInfer(request, timeout=60)
        assert answer.id == "7"
        return {out.name: [item.decode() for item in out.contents.bytes_contents] for out in answer.outputs}

    said["infer label"] = infer("resnet-50", "image", image)["label"]
    said["infer summary"] = infer("bart-large-cnn", "text", text)["summary_text"]

with grpc.insecure_channel(management_address) as channel:
    stub = management_pb2_grpc.ManagementAPIsServiceStub(channel)
    models = json.loads(stub.ListModels(management_pb2.ListModelsRequest(limit=100)).msg)["models"]
    said["models"] = sorted(model["modelName"] for model in models)
    described = stub.DescribeModel(management_pb2.DescribeModelRequest(model_name="t5-small")).msg
    said["workers"] = [worker["status"] for worker in json.loads(described)[0]["workers"]]

assert not {"client", "handlers"} & set(sys.modules)
print(json.dumps(said))
"""


def test_stubs_of_the_published_protos_get_answers(server, stubs):
    (stubs / "image.jpg").write_bytes(IMAGE)
    (stubs / "report.txt").write_text(TEXT)
    (stubs / "foreign.py").write_text(FOREIGN)
    command = [sys.executable, "foreign.py", server.grpc_inference, server.grpc_management]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=stubs, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["health"] == "Healthy"
    assert result["labels"][0]["label"] == LABEL
    assert len(result["labels"]) == 2
    assert result["summary"] == result["after"] == [{"summary_text": SUMMARY}]
    assert result["streamed"] == [[{"summary_text": SUMMARY}]]
    assert (result["error"]["code"], result["error"]["type"]) == (400, "InvalidImage")
    assert "Model not found: nobody" in result["unknown"]
    assert (result["live"], result["ready"], result["model ready"]) == (True, True, True)
    assert json.loads(result["infer label"][0]) == LABEL  # TorchServe writes BYTES as JSON strings
    assert json.loads(result["infer summary"][0]) == SUMMARY
    assert set(SUMMARIZERS) < set(result["models"])
    assert result["workers"] == ["READY"]


CLIENTS = ROOT / "tests" / "clients"
VENV = ROOT / ".venv-clients"


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running


@pytest.fixture(params=["direct", pytest.param("nginx", marks=needs_nginx)])
def url(request, server):
    """Return the address of TorchServe or nginx."""
    return server.inference if request.param == "direct" else request.getfixturevalue("front").url


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return the paths of an image and a text. The image's pixels are in a .npy file in the same folder."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "image.jpg").write_bytes(IMAGE)
    np.save(folder / "image.npy", np.asarray(Image.open(io.BytesIO(IMAGE)).convert("RGB")))
    (folder / "report.txt").write_text(TEXT)
    return str(folder / "image.jpg"), str(folder / "report.txt")


def run_client(script, *arguments):
    """Run a program of tests/clients in the environment of third-party clients, and return its JSON output."""
    if script.endswith(".mjs"):
        program = shutil.which("node")
        if program is None:
            pytest.skip("node is not installed")
    else:
        program = str(VENV / "bin" / "python")
        if not (VENV / ".clients-stamp").exists():
            pytest.skip(".venv-clients is missing; run scripts/setup --clients")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [program, str(CLIENTS / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", ["fetch.mjs", "plain_requests.py"])
def test_requests_without_a_content_type_are_answered(script, url, inputs):
    """Node's fetch sends text/plain for strings; `requests` sends no content type."""
    result = run_client(script, url, *inputs)
    ok = {name: answer["body"] for name, answer in result.items() if answer["status"] == 200}
    assert result.keys() - ok.keys() == {"refused"}
    assert result["refused"]["status"] == 400
    assert "'num_beams' must be an integer" in result["refused"]["body"]["error"]
    assert ok["summary"] == ok["text"] == [{"summary_text": SUMMARY}]
    assert ok["v1"] == {"predictions": [{"summary_text": SUMMARY}]}
    assert SUMMARY.startswith(ok["short"][0]["summary_text"])
    assert len(ok["short"][0]["summary_text"]) < len(SUMMARY)
    for name, count in (("labels", 2), ("form", 2), ("image", 5)):
        assert (ok[name][0]["label"], len(ok[name])) == (LABEL, count)


@pytest.mark.parametrize("package", ["huggingface-2", "huggingface-latest"])
def test_huggingface_client_for_node_gets_answers(package, url, inputs):
    if not (VENV / ".node-clients-stamp").exists():
        pytest.skip("the packages for Node are missing; install npm and run scripts/setup --clients")
    result = run_client("huggingface.mjs", str(VENV), package, url, *inputs)
    assert result["summary"]["summary_text"] == result["options"]["summary_text"] == SUMMARY
    assert len(result["short"]["summary_text"]) < len(SUMMARY)
    assert "an answer" not in result["refused"]
    assert (result["labels"][0]["label"], len(result["labels"])) == (LABEL, 5)


def test_mlserver_codecs_are_decoded(url, inputs):
    result = run_client("mlserver_client.py", url, *inputs)
    for name in ("lab", "pixels", "floats", "files"):
        assert (result[name][0], len(result[name])) == (LABEL, 5), result[name]
    assert (result["batch"][:5], result["batch"][5:]) == (result["pixels"], result["pixels"])
    assert result["texts"] == [SUMMARY] * 2
    assert result["bytes"] == result["strings"] == [SUMMARY]
    assert (
        "the input 'another' is unknown" in result["wrong"]["error"]
        or "'payload'" in result["wrong"]["error"]
    )


@needs_nginx
def test_tritonclient_grpc_gets_answers_through_nginx(front, inputs):
    result = run_client("triton_grpc.py", front.config.grpc, *inputs)
    assert (result["live"], result["ready"], result["version ready"]) == (True, True, True)
    assert result["model ready"] == [True, False]
    assert result["server"] == "Torchserve"
    assert result["metadata"] == [["summary_text", "BYTES", [-1]], ["truncated", "BOOL", [-1]]]
    assert (result["labels"][0], len(result["labels"]), result["id"]) == (LABEL, 5, "seven")
    assert (result["selected"], result["scores"]) == (["score", "label"], [1, 2])
    assert result["pixels"][0] == result["half"][0] == LABEL
    assert result["summaries"] == [SUMMARY] * 2
    assert result["truncated"] == [False, False]
    assert 0 < len(result["short"][0]) < len(SUMMARY)
    assert (result["typed"], result["typed id"]) == ([SUMMARY], "8")
    assert result["parameter"] == [
        "StatusCode.INVALID_ARGUMENT",
        "'top_k' must be an integer of at least 1, not 0",
    ]
    assert result["model"] == ["StatusCode.NOT_FOUND", "Model not found: nobody"]
    assert result["output"][0] == "StatusCode.INVALID_ARGUMENT"
    assert result["method"][0] == "StatusCode.UNIMPLEMENTED"
    assert "DEADLINE_EXCEEDED" in result["late"][0] or "Deadline Exceeded" in result["late"][1]


async def test_kserve_v1_requests_are_answered(url):
    b64 = base64.b64encode(IMAGE).decode()
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        path = "/v1/models/resnet-50:predict"
        for instance in (b64, {"b64": b64}, {"data": b64}, {"image": {"b64": b64}}):
            message = {"instances": [instance, instance], "parameters": {"top_k": 2}}
            answer = await http.post(path, json=message)
            assert answer.status_code == 200
            first, second = answer.json()["predictions"]
            assert first == second
            assert (first[0]["label"], len(first)) == (LABEL, 2)
        answer = await http.post(
            "/v1/models/t5-small:predict", content=json.dumps({"instances": [{"data": TEXT}]})
        )
        assert answer.json() == {"predictions": [{"summary_text": SUMMARY}]}
        answer = await http.post(path, json={"instances": [[1, 2]]})
        assert (answer.status_code, answer.json()["type"]) == (400, "InvalidRequest")
        assert "instances[0] must be a string" in answer.json()["error"]
        assert (await http.post("/v1/models/nobody:predict", json={})).status_code == 404


@needs_nginx
def test_kserve_model_routes_and_mlserver_docs_are_served(front):
    with httpx.Client(base_url=front.url, timeout=60) as http:
        assert http.get("/v1/models/t5-small").json() == {"name": "t5-small", "ready": True}
        assert http.get("/v1/models/nobody").status_code == 404
        assert set(SUMMARIZERS) < set(http.get("/v1/models").json()["models"])
        assert http.get("/v1/models/t5-small:predict").status_code == 405
        for path in ("/v2/docs", "/v2/models/t5-small/docs"):
            answer = http.get(path, follow_redirects=True)
            assert (answer.status_code, answer.url) == (200, httpx.URL(f"{front.url}/docs"))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_of_tritonclient_are_answered(url, algorithm):
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    pixels = np.asarray(Image.open(io.BytesIO(IMAGE)).convert("RGB"))
    image = triton.InferInput("INPUT0", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels)
    answer = client.infer(
        "resnet-50",
        [image],
        timeout=60_000_000,
        priority=2,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("label")[0, 0].decode() == LABEL
    client.close()


def test_registering_twice_over_grpc_is_a_conflict(server):
    for protocol in ("rest", "grpc"):
        with Client(endpoints=server.endpoints, protocol=protocol) as client:
            for name in (None, "t5-small"):
                with pytest.raises(Conflict, match="already registered"):
                    client.register("t5-small.mar", model_name=name)
