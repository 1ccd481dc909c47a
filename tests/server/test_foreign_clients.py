"""Clients that nobody here wrote, unchanged: Hugging Face's, sync and async; gRPC from the published protos alone."""

import asyncio
import importlib.resources
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient, InferenceTimeoutError
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from training.pictures import picture
from training.reports import report

SUMMARIZERS = ("t5-small", "bart-large-cnn")
# Hugging Face's own: its async client sends bytes in a way that its HTTP library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LABEL, PICTURE = picture(2024, 5)
TEXT, SUMMARY = report(2024, 3)


@pytest.fixture(params=["sync", "async"])
def ask(request, server):
    """Calls a method of Hugging Face's client for one of our models."""

    async def asks(model, method, *arguments, timeout=60.0, **options):
        url = f"{server.inference}/predictions/{model}"
        if request.param == "sync":
            call = getattr(InferenceClient(model=url, timeout=timeout), method)
            return await asyncio.to_thread(call, *arguments, **options)
        async with AsyncInferenceClient(model=url, timeout=timeout) as connection:
            return await getattr(connection, method)(*arguments, **options)

    return asks


async def test_pictures_in_every_form_it_sends(ask, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PICTURE)
    for form in (PICTURE, str(photo), photo):
        answer = await ask("resnet-50", "image_classification", form)
        assert len(answer) == 5
        assert answer[0].label == LABEL
        assert answer[0].score > answer[1].score


async def test_parameters_of_pictures(ask):
    answer = await ask("resnet-50", "image_classification", PICTURE, top_k=2, function_to_apply="sigmoid")
    assert len(answer) == 2
    assert answer[0].label == LABEL


@pytest.mark.parametrize("model", SUMMARIZERS)
async def test_summaries(ask, model):
    assert (await ask(model, "summarization", TEXT)).summary_text == SUMMARY
    short = await ask(
        model,
        "summarization",
        TEXT,
        generate_parameters={"max_new_tokens": 5, "min_length": 1, "num_beams": 2},
        clean_up_tokenization_spaces=True,
        truncation="longest_first",
    )
    assert 0 < len(short.summary_text) < len(SUMMARY)


async def test_errors_tell_what_is_wrong(ask):
    with pytest.raises(BadRequestError, match="not a picture that can be read"):
        await ask("resnet-50", "image_classification", b"no picture")
    with pytest.raises(BadRequestError, match="'top_k' must be an integer of at least 1"):
        await ask("resnet-50", "image_classification", PICTURE, top_k=0)
    with pytest.raises(BadRequestError, match="'temperature' cannot be changed here"):
        await ask("t5-small", "summarization", TEXT, generate_parameters={"temperature": 2.0})
    with pytest.raises(HfHubHTTPError, match="413") as too_long:
        await ask("t5-small", "summarization", TEXT * 30, truncation="do_not_truncate")
    assert "'truncation' is off" in str(too_long.value)
    with pytest.raises(HfHubHTTPError, match="404"):
        await ask("nobody", "summarization", TEXT)


async def test_its_own_deadline(ask):
    with pytest.raises(InferenceTimeoutError):
        await ask("t5-small", "summarization", TEXT, timeout=0.001)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """What protoc makes of the files that TorchServe's jar publishes, in a folder with nothing of ours."""
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
picture, text = open("picture.jpg", "rb").read(), open("report.txt", "rb").read()
said = {}

with grpc.insecure_channel(inference_address) as channel:
    stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
    said["health"] = json.loads(stub.Ping(Empty()).health)["status"]

    def predict(model, **fields):
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        return json.loads(stub.Predictions(request, timeout=60).prediction)

    said["labels"] = predict("resnet-50", image=picture, top_k=b"2")
    said["summary"] = predict("t5-small", text=text)
    said["error"] = predict("resnet-50", image=b"no picture")
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

    said["infer label"] = infer("resnet-50", "image", picture)["label"]
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


def test_grpc_from_the_published_protos_alone(server, stubs):
    (stubs / "picture.jpg").write_bytes(PICTURE)
    (stubs / "report.txt").write_text(TEXT)
    (stubs / "foreign.py").write_text(FOREIGN)
    command = [sys.executable, "foreign.py", server.grpc_inference, server.grpc_management]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=stubs, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["health"] == "Healthy"
    assert said["labels"][0]["label"] == LABEL
    assert len(said["labels"]) == 2
    assert said["summary"] == said["after"] == [{"summary_text": SUMMARY}]
    assert said["streamed"] == [[{"summary_text": SUMMARY}]]
    assert (said["error"]["code"], said["error"]["type"]) == (400, "InvalidImage")
    assert "Model not found: nobody" in said["unknown"]
    assert (said["live"], said["ready"], said["model ready"]) == (True, True, True)
    assert json.loads(said["infer label"][0]) == LABEL  # TorchServe writes BYTES as JSON strings
    assert json.loads(said["infer summary"][0]) == SUMMARY
    assert set(SUMMARIZERS) < set(said["models"])
    assert said["workers"] == ["READY"]
