"""Requests in every form to a real TorchServe."""

import base64
import json
import subprocess

import httpx
import pytest

from handlers.core.device import AMX, cpu_flags, has_any
from handlers.engines.seq2seq.step_kernels import LEVELS
from tests.tools import needs
from training.images import draw_image
from training.reports import draw_example

SUMMARIZERS = ("t5-small", "bart-large-cnn")
LABEL, IMAGE = draw_image(2024, 5)
TEXT, SUMMARY = draw_example(2024, 3)
BASE64 = base64.b64encode(IMAGE).decode()


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.inference, timeout=60) as client:
        yield client


def tensor(name, data):
    return {"inputs": [{"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data}]}


FORMS = {
    "raw": {"content": IMAGE},
    "jpeg": {"content": IMAGE, "headers": {"content-type": "image/jpeg"}},
    "field image": {"files": {"image": ("p.jpg", IMAGE)}},
    "field data": {"files": {"data": ("p.jpg", IMAGE, "image/jpeg")}},
    "field file": {"files": {"file": IMAGE}},
    "json": {"json": {"inputs": BASE64}},
    "json with a charset": {
        "content": json.dumps({"inputs": BASE64}),
        "headers": {"content-type": "application/json; charset=utf-8"},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_image_is_classified_in_every_form(http, form):
    response = http.post("/predictions/resnet-50", **FORMS[form])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert len(answer) == 5
    assert set(answer[0]) == {"label", "score"}
    assert answer[0]["label"] == LABEL


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"image": IMAGE}, "data": {"top_k": "2"}},
        {"files": {"image": IMAGE}, "data": {"parameters": '{"top_k": 2}'}},
        {"json": {"inputs": BASE64, "parameters": {"top_k": 2}}},
    ],
)
def test_parameters_are_applied_in_every_form(http, form):
    assert len(http.post("/predictions/resnet-50", **form).json()) == 2


@pytest.mark.parametrize(
    "route", ["/models/resnet-50/invoke?top_k=1", "/invocations?model_name=resnet-50&top_k=1"]
)
def test_query_parameters_are_applied_on_the_invoke_route(http, route):
    assert [item["label"] for item in http.post(route, content=IMAGE).json()] == [LABEL]


@pytest.mark.parametrize("model", SUMMARIZERS)
@pytest.mark.parametrize(
    "form",
    [
        {"content": TEXT.encode(), "headers": {"content-type": "text/plain; charset=utf-8"}},
        {"content": TEXT.encode()},
        {"files": {"text": ("r.txt", TEXT.encode(), "text/plain")}},
        {"data": {"text": TEXT}},
        {"json": {"inputs": TEXT}},
        {"json": {"inputs": [TEXT]}},
    ],
)
def test_text_is_summarized_in_every_form(http, model, form):
    response = http.post(f"/predictions/{model}", **form)
    assert response.status_code == 200
    assert response.json() == [{"summary_text": SUMMARY}]


@pytest.mark.parametrize("model", SUMMARIZERS)
def test_several_texts_are_summarized_with_parameters(http, model):
    texts = [draw_example(2024, index)[0] for index in (3, 4)]
    short = http.post(
        f"/predictions/{model}", json={"inputs": texts, "parameters": {"max_new_tokens": 5, "min_length": 1}}
    ).json()
    full = http.post(f"/predictions/{model}", json={"inputs": texts}).json()
    assert len(short) == len(full) == 2
    assert all(len(s["summary_text"]) < len(f["summary_text"]) for s, f in zip(short, full, strict=True))


@pytest.mark.parametrize("model", SUMMARIZERS)
def test_truncation_is_reported_or_rejected(http, model):
    long = TEXT * 30
    assert http.post(f"/predictions/{model}", json={"inputs": long}).json()[0]["truncated"] is True
    refused = http.post(f"/predictions/{model}", json={"inputs": long, "parameters": {"truncation": False}})
    assert (refused.status_code, refused.json()["type"]) == (413, "TextTooLong")


def test_open_inference_request_is_answered(http):
    answer = http.post("/v2/models/resnet-50/infer", json={"id": "1"} | tensor("image", [BASE64])).json()
    assert (answer["id"], answer["model_name"]) == ("1", "resnet-50")
    assert answer["outputs"][0]["data"][0] == LABEL
    for model in SUMMARIZERS:
        answer = http.post(f"/v2/models/{model}/infer", json=tensor("text", [TEXT, TEXT])).json()
        outputs = {output["name"]: output for output in answer["outputs"]}
        assert outputs["summary_text"]["data"] == [SUMMARY, SUMMARY]
        assert outputs["truncated"]["data"] == [False, False]


def test_errors_have_the_form_of_the_protocol(http):
    native = http.post("/predictions/resnet-50", content=b"no image")
    assert native.status_code == 400
    assert set(native.json()) == {"code", "type", "message", "error"}
    open_inference = http.post("/v2/models/resnet-50/infer", json=tensor("image", ["bm8="]))
    assert open_inference.status_code == 400
    assert "not in a supported image format" in open_inference.json()["error"]


def test_every_photo_is_classified_or_a_client_error(http, shared_data):
    """The photos include CMYK, palettes, alpha, 16 bits, EXIF, animations, truncated files and bombs."""
    refused = set()
    for path in sorted((shared_data / "photos").iterdir()):
        response = http.post("/predictions/resnet-50", content=path.read_bytes())
        assert response.status_code in (200, 400, 413), path.name
        if response.status_code != 200:
            refused.add(path.name)
    hostile = {"d_empty.jpg", "d_text.jpg", "d_bomb_20000x20000_1bit.png", "d_header_2g_x_2g.png"}
    cut_off = {"pil_truncated_image.png", "pil_truncated_jpeg.jpg", "pil_broken_data_stream.png"}
    assert refused == hostile | cut_off | {"labels.tsv"}


def test_unknown_routes_and_models_are_404(http):
    assert http.get("/predictions/resnet-50").status_code == 400  # TorchServe passes on an empty body
    for path in ("/predictions/nobody", "/predictions/resnet-50/9.9", "/nowhere"):
        response = http.post(path, content=IMAGE)
        assert response.status_code == 404
        assert response.json()["code"] == 404


@needs("curl")
def test_file_uploaded_by_curl_is_classified(server, tmp_path):
    photo, text = tmp_path / "photo.jpg", tmp_path / "report.txt"
    photo.write_bytes(IMAGE)
    text.write_text(TEXT)

    def curl(model, file):
        command = ["curl", "-s", "-X", "POST", "-T", file, f"{server.inference}/predictions/{model}"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    assert curl("resnet-50", photo)[0]["label"] == LABEL
    assert curl("t5-small", text) == [{"summary_text": SUMMARY}]


def test_describe_reports_the_served_model(server):
    for model in ("resnet-50", *SUMMARIZERS):
        (described,) = httpx.get(f"{server.management}/models/{model}?customized=true", timeout=30).json()
        metadata = described["customizedMetadata"]
        assert described["modelVersion"].startswith("starter-")
        assert metadata["weights"] == "starter"
        assert metadata["version"] == described["modelVersion"]
        assert metadata["device"] == "cpu"
        assert metadata["engine"] == ("openvino" if model == "resnet-50" else "native")
        if model in SUMMARIZERS:
            is_supported = any(flags <= cpu_flags() for flags in LEVELS.values())
            compiled = is_supported and "none" not in metadata["prepared"]["step_kernels"]
            assert metadata["attention"] == ("compiled" if compiled else "torch")
            has_steps = metadata["precision"] == "fp32" or not has_any(AMX)
            assert metadata["step_linear"] == ("compiled" if compiled and has_steps else "torch")
        assert metadata["parameters"]
