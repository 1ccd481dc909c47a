"""The Open Inference Protocol: tritonclient, and equal answers over gRPC and REST."""

import base64
import io
import json

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.server.fronted import in_front_of, needs_nginx
from torchserve_models.client import Client, Endpoints, InvalidParameter, Tensor
from training.images import draw_image
from training.reports import draw_example

LABEL, IMAGE = draw_image(2025, 4)
OTHER_LABEL, OTHER = draw_image(2025, 9)
TEXTS = [draw_example(2025, index)[0] for index in range(2)]
SUMMARIES = [draw_example(2025, index)[1] for index in range(2)]
PIXELS = np.asarray(Image.open(io.BytesIO(IMAGE)).convert("RGB"))


def connect(url):
    return triton.InferenceServerClient(url.removeprefix("http://"))


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running.url


@pytest.fixture(scope="module")
def direct(server):
    client = connect(server.inference)
    yield client
    client.close()


def tensor(name, array, datatype, **more):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **more)
    return tensor


def files(*images):
    return tensor("image", np.array(images, dtype=np.object_), "BYTES")


@pytest.mark.parametrize(
    "image",
    [
        files(IMAGE),
        tensor("image", PIXELS, "UINT8"),
        tensor("image", PIXELS, "UINT8", binary_data=False),
        tensor("image", PIXELS.astype(np.float32), "FP32"),
        tensor("image", PIXELS[None], "UINT8"),
    ],
    ids=["file", "pixels", "pixels as JSON", "float pixels", "a batch of one"],
)
def test_tritonclient_classifies_images(direct, image):
    answer = direct.infer("resnet-50", [image], request_id="seven")
    assert answer.as_numpy("label").shape == answer.as_numpy("score").shape == (1, 5)
    assert answer.as_numpy("label")[0, 0].decode() == LABEL
    assert answer.as_numpy("score").dtype == np.float32
    assert answer.as_numpy("score")[0].sum() <= 1.001
    assert answer.get_response()["id"] == "seven"


def test_tritonclient_sends_batches_and_parameters_and_selects_outputs(direct):
    outputs = [triton.InferRequestedOutput("score", binary_data=False), triton.InferRequestedOutput("label")]
    answer = direct.infer("resnet-50", [files(IMAGE, OTHER)], outputs=outputs, parameters={"top_k": 2})
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["score", "label"]
    assert answer.as_numpy("score").shape == (2, 2)
    assert answer.as_numpy("label")[:, 0].tolist() == [LABEL.encode(), OTHER_LABEL.encode()]


@pytest.mark.parametrize("binary_data", [True, False])
def test_tritonclient_summarizes_texts(direct, binary_data):
    texts = tensor("text", np.array(TEXTS, dtype=np.object_), "BYTES", binary_data=binary_data)
    answer = direct.infer("t5-small", [texts])
    assert [text.decode() for text in answer.as_numpy("summary_text")] == SUMMARIES
    assert answer.as_numpy("truncated").tolist() == [False, False]


def test_tritonclient_gets_the_error_message(direct):
    with pytest.raises(InferenceServerException, match="not in a supported image format") as caught:
        direct.infer("resnet-50", [files(b"no image")])
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="multiply the pixels by 255"):
        direct.infer("resnet-50", [tensor("image", PIXELS.astype(np.float32) / 255, "FP32")])
    with pytest.raises(InferenceServerException, match="this model has: label, score"):
        direct.infer("resnet-50", [files(IMAGE)], outputs=[triton.InferRequestedOutput("logits")])


@needs_nginx
def test_tritonclient_gets_answers_through_nginx(front):
    client = connect(front)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for model, name, outputs in (
        ("resnet-50", "image", [("label", "BYTES", [-1, -1]), ("score", "FP32", [-1, -1])]),
        ("t5-small", "text", [("summary_text", "BYTES", [-1]), ("truncated", "BOOL", [-1])]),
    ):
        assert client.is_model_ready(model)
        metadata = client.get_model_metadata(model)
        assert client.is_model_ready(model, metadata["versions"][0])
        assert (metadata["name"], metadata["inputs"][0]["name"]) == (model, name)
        described = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]]
        assert described == outputs
        assert {"name", "type", "expected"} <= metadata["parameters"][0].keys()
    assert not client.is_model_ready("no-such-model")
    assert client.infer("resnet-50", [files(IMAGE)]).as_numpy("label")[0, 0].decode() == LABEL
    texts = tensor("text", np.array(TEXTS, dtype=np.object_), "BYTES")
    summaries = client.infer("t5-small", [texts]).as_numpy("summary_text")
    assert [text.decode() for text in summaries] == SUMMARIES
    client.close()


REQUESTS = [
    ("resnet-50", [Tensor("image", "BYTES", (2,), (IMAGE, OTHER))], {}),
    ("resnet-50", [Tensor("image", "BYTES", (1,), (IMAGE,))], {"top_k": 3, "function_to_apply": "none"}),
    ("resnet-50", [Tensor("image", "UINT8", PIXELS.shape, tuple(PIXELS.ravel().tolist()))], {"top_k": 1}),
    ("resnet-50", [Tensor("image", "FP32", (1, *PIXELS.shape), tuple(PIXELS.ravel().astype(float).tolist()))], {}),
    ("t5-small", [Tensor("text", "BYTES", (2,), tuple(TEXTS))], {"max_new_tokens": 9, "num_beams": 2}),
    ("t5-small", [Tensor("text", "BYTES", (1,), ("Ein Satz mit “Anführung”. " + TEXTS[0],))], {"truncation": True}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "inputs", "parameters"), REQUESTS)
def test_grpc_answers_equal_rest_answers(server, model, inputs, parameters):
    endpoints = Endpoints(inference=server.inference, grpc_inference=server.grpc_inference)
    answers = []
    for protocol in ("open-inference", "open-inference-grpc"):
        with Client(endpoints=endpoints, protocol=protocol) as client:
            answers.append(client.infer(model, inputs, parameters, id="an id"))
    rest_answer, grpc_answer = answers
    assert (grpc_answer.id, grpc_answer.model_name, grpc_answer.model_version) == (
        rest_answer.id,
        rest_answer.model_name,
        rest_answer.model_version,
    )
    for one, other in zip(rest_answer.outputs, grpc_answer.outputs, strict=True):
        assert (one.name, one.datatype, one.shape) == (other.name, other.datatype, other.shape)
        assert list(other.data) == (
            pytest.approx(list(one.data), rel=1e-3) if one.datatype == "FP32" else list(one.data)
        )


def test_grpc_selects_outputs_and_rejects_invalid_parameters(server):
    endpoints = Endpoints(inference=server.inference, grpc_inference=server.grpc_inference)
    image = Tensor("image", "BYTES", (1,), (IMAGE,))
    with Client(endpoints=endpoints, protocol="open-inference-grpc") as client:
        answer = client.infer("resnet-50", [image, Tensor("outputs", "BYTES", (1,), ("score",))])
        assert [output.name for output in answer.outputs] == ["score"]
        with pytest.raises(InvalidParameter, match="'top_k' must be"):
            client.infer("resnet-50", [image], {"top_k": 0})


def test_concurrent_requests_get_their_answers_and_errors(server):
    """Valid and invalid requests in binary and JSON form are sent concurrently."""
    import asyncio

    def body(content, size):
        tensors = [
            {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        ]
        text = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        element = len(content).to_bytes(4, "little") + content
        return {"content": text + element, "headers": {"inference-header-content-length": str(len(text))}}

    forms = [
        (body(IMAGE, len(IMAGE) + 4), 200),
        (body(IMAGE, 7), 400),
        (body(b"no image", 14), 400),
        ({"json": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1],
                               "data": [base64.b64encode(IMAGE).decode()]}]}}, 200),
        ({"json": {"inputs": "text"}}, 400),
    ]  # fmt: skip

    async def run():
        async with httpx.AsyncClient(base_url=server.inference, timeout=60) as http:
            calls = [http.post("/v2/models/resnet-50/infer", **form) for form, _ in forms * 6]
            return await asyncio.gather(*calls)

    for answer, (_, status) in zip(asyncio.run(run()), forms * 6, strict=True):
        assert answer.status_code == status
        if status == 400:
            assert answer.json()["error"]
        elif length := answer.headers.get("inference-header-content-length"):
            assert answer.headers["content-type"] == "application/octet-stream"
            assert json.loads(answer.content[: int(length)])["outputs"][0]["name"] == "label"
            assert LABEL.encode() in answer.content[int(length) :]
        else:
            assert answer.json()["outputs"][0]["data"][0] == LABEL
