"""Tests of the image classifier: answers in every request format, parameters, batches and warm-up."""

import base64
import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.core.device import FAST_BF16, has_any
from handlers.engines.image.torch_classifier import TorchClassifier
from handlers.image_classifier import ImageClassifier, read_labels
from handlers.vision.gpu_decode import DeviceDecoder
from tests.unit.handlers.classifying import STARTER, start_classifier
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.sending import HTTP, js, raw, send
from tests.unit.handlers.torchserve import grpc_request, http_request
from training.images import LABELS, draw_image


@pytest.fixture(scope="module")
def starter(prepared_starter, tmp_path_factory):
    return start_classifier(prepared_starter, tmp_path_factory.mktemp("starter"))


def assert_same(one, other) -> None:
    """Assert equality within a tolerance, because the order of additions depends on the batch."""
    assert [item["label"] for item in one] == [item["label"] for item in other]
    assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=1e-4)


@pytest.mark.full
def test_batch_answers_equal_those_of_single_items(starter):
    handler, context = starter
    requests = [raw(draw_image(7, index)[1]) for index in range(6)]
    requests[2] = raw(b"no image")
    requests[4] = raw(draw_image(7, 4)[1][:200])
    together, statuses = send(handler, context, *requests)
    assert statuses == [200, 200, 400, 200, 400, 200]
    for request, answer in zip(requests, together, strict=True):
        (alone,), _ = send(handler, context, request)
        if isinstance(answer, dict):
            assert alone == answer
        else:
            assert_same(alone, answer)


def test_every_request_form_gets_the_same_answer(starter):
    handler, context = starter
    label, data = draw_image(5, 3)
    text = base64.b64encode(data).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    forms = [
        raw(data),
        ({"image": bytearray(data)}, HTTP),
        ({"file": bytearray(data), "top_k": bytearray(b"5")}, HTTP),
        ({"data": bytearray(data)}, {"data": {"content-type": ""}}),
        js({"inputs": text}),
        js({"inputs": f"data:image/jpeg;base64,{text}", "parameters": {"top_k": 5}}),
        raw(json.dumps({"inputs": text})),
        http_request(json.dumps({"inputs": text}).encode(), "text/plain;charset=UTF-8"),
        http_request(
            json.dumps({"inputs": text}).encode(), "application/x-www-form-urlencoded", proxied=True
        ),
        http_request(data, "image/jpeg; charset=utf-16le"),
        grpc_request({"image": json.dumps({"inputs": text}).encode()}),
    ]
    answers, statuses = send(handler, context, *forms)
    assert statuses == [200] * len(forms)
    for answer in answers:
        assert_same(answer, answers[0])
    assert answers[0][0]["label"] == label
    (answer,), _ = send(handler, context, js({"inputs": [tensor]}))
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["label"]["shape"] == [1, 5]
    assert outputs["label"]["data"] == [item["label"] for item in answers[0]]
    assert outputs["score"]["data"] == pytest.approx([item["score"] for item in answers[0]], abs=1e-5)


def test_pixels_get_the_same_answer_as_the_image(starter):
    handler, context = starter
    _, data = draw_image(5, 4)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    tensor = {
        "name": "image",
        "shape": list(pixels.shape),
        "datatype": "UINT8",
        "data": pixels.ravel().tolist(),
    }
    (by_pixels,), _ = send(handler, context, js({"inputs": [tensor], "outputs": [{"name": "score"}]}))
    (by_bytes,), _ = send(handler, context, raw(data))
    (output,) = by_pixels["outputs"]
    assert output["data"] == pytest.approx([item["score"] for item in by_bytes], abs=1e-4)


def test_several_images_in_one_request_are_answered(starter):
    handler, context = starter
    images = [draw_image(8, index) for index in range(3)]
    inputs = [base64.b64encode(data).decode() for _, data in images]
    (answer,), _ = send(handler, context, js({"inputs": inputs, "parameters": {"top_k": 1}}))
    assert [labels[0]["label"] for labels in answer] == [label for label, _ in images]
    assert all(len(labels) == 1 for labels in answer)


@pytest.mark.parametrize(
    ("top_k", "status"),
    [(1, 200), (len(LABELS), 200), (len(LABELS) + 1, 200), (10**30, 200), (0, 400), ("3", 400), (2.5, 400)],
)
def test_top_k_is_limited_to_the_number_of_labels(starter, top_k, status):
    handler, context = starter
    text = base64.b64encode(draw_image(1, 1)[1]).decode()
    (answer,), statuses = send(handler, context, js({"inputs": text, "parameters": {"top_k": top_k}}))
    assert statuses == [status]
    if status == 200:
        assert len(answer) == min(top_k, len(LABELS))
        assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
    else:
        assert "'top_k' must be an integer of at least 1" in answer["message"]


def test_function_to_apply_determines_scores(starter):
    handler, context = starter
    text = base64.b64encode(draw_image(1, 1)[1]).decode()

    def scores(function):
        parameters = {"function_to_apply": function, "top_k": len(LABELS)}
        (answer,), _ = send(handler, context, js({"inputs": text, "parameters": parameters}))
        return np.array([item["score"] for item in answer])

    logits = scores("none")
    assert scores("softmax") == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-4)
    assert scores("sigmoid") == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-4)


def test_images_of_unusual_shapes_are_answered(starter):
    handler, context = starter
    rng = random.Random(0)
    for size in ((1, 1), (2000, 3), (3, 2000), (30000, 1), (17, 4001)):
        image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        (answer,), statuses = send(handler, context, raw(buffer.getvalue()))
        assert statuses == [200]
        assert len(answer) == 5


@pytest.mark.full
def test_large_batch_takes_several_runs(prepared_starter, tmp_path):
    handler, context = start_classifier(prepared_starter, tmp_path, max_batch=2)
    images = [draw_image(3, index) for index in range(5)]
    answers, _ = send(handler, context, *[raw(data) for _, data in images])
    assert [answer[0]["label"] for answer in answers] == [label for label, _ in images]
    assert len(answers[0]) == 5


def test_items_of_one_batch_keep_their_parameters(starter):
    handler, context = starter
    text = base64.b64encode(draw_image(1, 1)[1]).decode()
    parameter_sets = [
        {"top_k": 1},
        {"function_to_apply": "none", "top_k": 2},
        {"function_to_apply": "sigmoid"},
        {},
    ]
    requests = [js({"inputs": text, "parameters": parameters}) for parameters in parameter_sets]
    answers, _ = send(handler, context, *requests)
    alone = [send(handler, context, request)[0][0] for request in requests]
    assert [len(answer) for answer in answers] == [1, 2, 5, 5]
    for answer, other in zip(answers, alone, strict=True):
        assert_same(answer, other)


def test_description_has_engine_and_reason(starter, caplog):
    handler, context = starter
    (answer,), _ = send(handler, context, ({}, {"describe": "True"}))
    assert (answer["engine"], answer["precision"]) == ("openvino", "fp32")
    assert answer["reason"] == "the fastest on CPUs"
    assert (answer["decode"], answer["decode_reason"]) == ("cpu", "this worker has no GPU")


def test_gpu_decoding_gives_the_answers_of_cpu_decoding(starter, tmp_path):
    """The device is a CPU in place of a GPU. An image that fails must not affect its neighbors."""
    handler, context = start_classifier(STARTER, tmp_path, engine="torch")
    decoder = DeviceDecoder(handler._preprocess.plan, torch.device("cpu"))
    decoded = []
    handler._preprocess.decoder = lambda files: (decoded.append(len(files)), decoder(files))[1]
    data = [draw_image(7, index)[1] for index in range(4)]
    half = len(data[0]) * 3 // 4
    damaged = data[0][:half] + b"\xff\xc4\x00\x05\xff\xff\xff" + data[0][half:]
    png = io.BytesIO()
    Image.open(io.BytesIO(data[1])).save(png, "PNG")
    requests = [raw(data[0]), raw(png.getvalue()), raw(data[2]), raw(data[3][:-50]), raw(data[3])]
    answers, statuses = send(handler, context, *requests)
    expected, _ = send(*starter, *requests)
    assert decoded == [3]
    assert statuses == [200, 200, 200, 400, 200]
    for answer, other in zip(answers, expected, strict=True):
        if isinstance(answer, list):
            assert [label["score"] for label in answer] == pytest.approx(
                [label["score"] for label in other], abs=0.02
            )
            assert answer[0]["label"] == other[0]["label"]
    assert answers[3] == expected[3]

    def strict(files):  # like nvJPEG, which rejects a batch with one damaged file
        if damaged in files:
            raise RuntimeError("Error while decoding JPEG images")
        return decoder(files)

    handler._preprocess.decoder = strict
    requests = [raw(data[0]), raw(damaged), js({"inputs": base64.b64encode(data[2]).decode()})]
    answers, statuses = send(handler, context, *requests)
    expected, _ = send(*starter, *requests)
    assert statuses == [200, 400, 200]
    assert answers[1] == expected[1]
    assert [answers[0][0]["label"], answers[2][0]["label"]] == [
        expected[0][0]["label"],
        expected[2][0]["label"],
    ]


@pytest.mark.parametrize(("batch_size", "max_batch", "warmed"), [(3, 32, [1, 2, 3]), (8, 2, [1, 2])])
def test_warm_up_runs_every_batch_size(tmp_path, monkeypatch, batch_size, max_batch, warmed):
    (tmp_path / "model").symlink_to(STARTER)
    sizes = []
    run = TorchClassifier.run
    monkeypatch.setattr(
        TorchClassifier, "run", lambda self, batch: (sizes.append(len(batch)), run(self, batch))[1]
    )
    settings = {"handler": {"engine": "torch", "max_batch": max_batch}}
    ImageClassifier().initialize(FakeContext(tmp_path, settings, batch_size=batch_size))
    assert sizes == [1, *warmed]


@pytest.mark.parametrize(
    ("config", "labels", "function"),
    [
        ({"id2label": {"1": "b", "0": "a"}}, ["a", "b"], "softmax"),
        ({"id2label": {"0": "a"}}, ["a"], "sigmoid"),
        (
            {"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"},
            ["a", "b"],
            "sigmoid",
        ),
        ({"model_type": "resnet"}, ["LABEL_0", "LABEL_1"], "softmax"),
        ({"model_type": "resnet", "num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"], "softmax"),
    ],
)
def test_labels_equal_those_of_transformers(tmp_path, config, labels, function):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_labels(tmp_path) == (labels, function)


@pytest.mark.full
@pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")
def test_bf16_scores_are_close_to_fp32(starter, prepared_starter, tmp_path):
    handler, context = start_classifier(prepared_starter, tmp_path, precision="bf16")
    assert handler.describe()["precision"] == "bf16"
    answers, _ = send(handler, context, *[raw(draw_image(4, index)[1]) for index in range(8)])
    reference, _ = send(*starter, *[raw(draw_image(4, index)[1]) for index in range(8)])
    assert [a[0]["label"] for a in answers] == [r[0]["label"] for r in reference]
