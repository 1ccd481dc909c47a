"""Routes and readiness of nginx and the gateway in front of a real TorchServe."""

import base64
import io
import json
import re
import subprocess
import time

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from tests.faults.toys import TALKATIVE, toy
from tests.server.fronted import IMAGE, LABEL, error, in_front_of, needs_nginx, through
from tests.tools import needs
from torchserve_models.client import Client, InvalidImage, ModelNotFound, TooLarge
from torchserve_models.paths import ROOT
from torchserve_models.serving.commands import samples
from training.reports import draw_example

pytestmark = needs_nginx
TEXT, SUMMARY = draw_example(2024, 3)
JPEG = {"content-type": "image/jpeg"}
TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(IMAGE).decode()]}
INFER = {"id": "1", "inputs": [TENSOR]}


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running


@pytest.fixture(scope="module")
def http(front):
    with httpx.Client(base_url=front.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def version(server):
    with Client(endpoints=server.endpoints) as client:
        return client.describe("resnet-50").version


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / ".run").mkdir()
    (folder / "photo.jpg").write_bytes(IMAGE)
    (folder / "report.txt").write_text(TEXT)
    (folder / "text.json").write_text(json.dumps({"text": TEXT}))
    pixels = np.asarray(Image.open(folder / "photo.jpg").convert("RGB"))
    (folder / "pixels.json").write_text(json.dumps({"img": pixels.tolist()}))
    (folder / "infer.json").write_text(json.dumps(INFER))
    return folder


CURL = {
    "a file": ("-X POST -T photo.jpg", "/predictions/resnet-50"),
    "what curl calls a form": ("--data-binary @photo.jpg", "/predictions/resnet-50"),
    "no content type": ("-H Content-Type: --data-binary @photo.jpg", "/predictions/resnet-50"),
    "a version": ("--data-binary @photo.jpg", "/predictions/resnet-50/VERSION"),
    "a field": ("-F data=@photo.jpg", "/predictions/resnet-50"),
    "a true form": ("--data-urlencode image@photo.jpg", "/predictions/resnet-50"),
    "predict": ("-F image=@photo.jpg", "/predict"),
    "image_classes": ("-F file=@photo.jpg", "/predict/image_classes"),
    "pixels": ("-H Content-Type:application/json -d @pixels.json", "/model"),
}
ONE = {
    "raw": ("--data-binary @photo.jpg", "/predictions/resnet-50?top_k=1"),
    "version": ("-X POST -T photo.jpg", "/predictions/resnet-50/VERSION?top_k=1"),
    "multipart": ("-F file=@photo.jpg", "/predictions/resnet-50?top_k=1"),
    "predict": ("-F image=@photo.jpg", "/predict?top_k=1"),
    "pixels": ("-d @pixels.json", "/model?top_k=1"),
}


def curl(options, url, folder):
    command = ["curl", "-sS", "--fail-with-body", "-m", "60", *options.split(), url]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@needs("curl")
class TestByCurl:
    @pytest.mark.parametrize("form", CURL)
    def test_image_is_classified(self, front, version, files, form):
        options, path = CURL[form]
        answer = curl(options, front.url + path.replace("VERSION", version), files)
        assert len(answer) == 5
        assert answer[0]["label"] == LABEL

    @pytest.mark.parametrize("form", ONE)
    def test_query_parameters_reach_the_handler(self, front, version, files, form):
        options, path = ONE[form]
        answer = curl(options, front.url + path.replace("VERSION", version), files)
        assert [label["label"] for label in answer] == [LABEL]

    @pytest.mark.parametrize(
        ("options", "path"),
        [
            ("-X POST -T report.txt", "/predictions/t5-small"),
            ("--data-binary @report.txt", "/predictions/t5-small?num_beams=2"),
            ("--data-urlencode text@report.txt -d num_beams=2", "/predictions/t5-small"),
            ("-H Content-Type:application/json -d @text.json", "/predict/text_summarize?model=t5"),
            ("-d @text.json", "/predict/text_summarize?model=bart&min=5&max=60"),
        ],
    )
    def test_text_is_summarized(self, front, files, options, path):
        assert curl(options, front.url + path, files) == [{"summary_text": SUMMARY}]

    def test_commands_of_the_docs_work(self, front, files):
        samples.write(files / ".run" / "samples")
        page = (ROOT / "docs" / "gateway.md").read_text()
        (commands,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        lines = commands.strip().splitlines()
        assert len(lines) == 5
        for line in lines:
            line = line.replace("http://127.0.0.1:8000", front.url).replace(
                "curl ", "curl -sS --fail-with-body "
            )
            done = subprocess.run(["bash", "-c", line], cwd=files, capture_output=True, text=True, timeout=90)
            assert done.returncode == 0, line + done.stdout + done.stderr
            answer = json.loads(done.stdout)
            assert answer == {"ready": True} or "summary_text" in answer[0] or answer[0]["label"] == "arrow"

    def test_length_aliases_limit_the_summary(self, front, files):
        (short,) = curl("-d @text.json", f"{front.url}/predict/text_summarize?model=bart&min=2&max=4", files)
        assert 0 < len(short["summary_text"].split()) <= 3

    @pytest.mark.parametrize(
        "path", ["/v2/models/resnet-50/infer", "/v2/models/resnet-50/versions/VERSION/infer"]
    )
    def test_open_inference_request_is_answered(self, front, version, files, path):
        answer = curl("-d @infer.json", front.url + path.replace("VERSION", version), files)
        assert answer["model_name"] == "resnet-50"
        assert answer["model_version"] == version
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        assert outputs["label"][0] == LABEL


def test_responses_match_torchserve(http, server):
    direct = httpx.post(f"{server.inference}/predictions/resnet-50", content=IMAGE, headers=JPEG)
    assert http.post("/predictions/resnet-50", content=IMAGE, headers=JPEG).json() == direct.json()


@pytest.mark.parametrize(
    ("path", "send", "code", "kind"),
    [
        ("/predictions/resnet-50", {"content": b"no image"}, 400, "InvalidImage"),
        ("/predictions/resnet-50?top_k=0", {"content": IMAGE}, 400, "InvalidParameter"),
        ("/predict/text_summarize?max=100000", {"json": {"text": TEXT}}, 400, "InvalidParameter"),
        ("/predict/text_summarize?model=gpt", {"json": {"text": TEXT}}, 400, "InvalidParameter"),
        ("/model", {"json": {"img": [[[0, 0, 300]]]}}, 400, "InvalidImage"),
    ],
)
def test_invalid_request_is_rejected(http, path, send, code, kind):
    error(http.post(path, **send), code, kind)


def test_torchserve_errors_are_passed_on(http):
    """The body has TorchServe's format, without the field `error`."""
    for response in (
        http.post("/predictions/nobody", content=b"x"),
        http.post("/predictions/resnet-50/9", content=b"x"),
    ):
        assert response.status_code == 404
        assert response.json()["type"].endswith("NotFoundException")


@pytest.mark.parametrize(
    ("path", "send"),
    [
        ("/predictions/resnet-50/?top_k=1", {"content": IMAGE}),
        ("/predictions/resnet-50/VERSION/?top_k=1", {"content": IMAGE}),
        ("/predict/?top_k=1", {"files": {"image": IMAGE}}),
        ("/predict/image_classes/?top_k=1", {"files": {"file": IMAGE}}),
        ("/v2/models/resnet-50/infer/", {"json": INFER}),
        ("/v2/models/resnet-50/versions/VERSION/infer/", {"json": INFER}),
        ("/predictions/t5-small/", {"content": TEXT.encode()}),
        ("/predict/text_summarize/?model=t5", {"json": {"text": TEXT}}),
        ("/model/?top_k=1", {"json": {"img": [[[1, 2, 3]]]}}),
    ],
)
def test_trailing_slash_of_a_prediction_is_ignored(http, version, path, send):
    path = path.replace("VERSION", version)
    expected = http.post(path.replace("/?", "?").rstrip("/"), **send)
    answer = http.post(path, **send)
    assert (answer.status_code, answer.json()) == (200, expected.json())


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/readyz/resnet-50", "/ping", "/v2", "/v2/health/live"]
)
@pytest.mark.parametrize("slashes", ["/", "//"])
def test_trailing_slash_of_a_get_route_is_ignored(http, path, slashes):
    answer = http.get(path + slashes)
    assert (answer.status_code, answer.json()) == (200, http.get(path).json())


def test_routes_do_not_redirect_and_internal_routes_are_closed(http):
    for path in ("/docs/", "/openapi.json/", "/docs/page.js/", "/v2/models/resnet-50/"):
        assert http.get(path).status_code == 200
    for path in (
        "/.error/",
        "/.read/",
        "/.method/",
        "/.preflight/",
        "/.died/",
        "/.budget-spent/",
        "/refusals/x/",
    ):
        error(http.get(path), 404, "NotFound")
    error(http.get("/model/"), 405, "NotAllowed")
    error(http.get("/models/"), 403, "AccessDenied")


def test_root_route_describes_the_server(http):
    body = http.get("/").json()
    assert (body["name"], body["ready"]) == ("torchserve-models", True)
    assert http.get(body["docs"]).status_code == http.get(body["openapi"]).status_code == 200
    assert "Status: ready" in http.get("/", headers={"accept": "text/html"}).text


def test_1080p_image_as_json_numbers_is_classified(http):
    """Clients of a Flask tutorial send such an image as 30 MB of JSON."""
    image = Image.open(io.BytesIO(IMAGE)).resize((1920, 1080))
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = http.post("/predictions/resnet-50", content=file.getvalue()).json()
    body = json.dumps({"img": np.asarray(image).tolist()}).encode()
    assert len(body) > 2.5e7
    answer = http.post("/model", content=body)
    assert answer.json() == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_pixels_give_the_same_labels_as_the_file(http, mode):
    image = Image.open(io.BytesIO(IMAGE)).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    expected = http.post("/predictions/resnet-50", content=file.getvalue()).json()
    pixels = np.asarray(image)
    assert http.post("/model", json={"img": pixels.tolist()}).json() == expected
    if mode != "1":
        assert http.post("/model", json={"img": (pixels / 255).tolist()}).json() == expected


def test_pixel_body_has_a_separate_limit(http):
    assert "larger than 48 MiB" in error(http.post("/model", content=b" " * (49 << 20)), 413, "TooLarge")
    assert "larger than 16 MiB" in error(http.post("/predict", content=b" " * (17 << 20)), 413, "TooLarge")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("min=many", "'min' must be an integer from 0 to 257, not 'many'"),
        ("max=1", "'max' must be an integer from 2 to 257, not 1"),
        ("max_length=1", "'max_length' must be an integer from 2 to 257, not 1"),
        ("min=50&max=20", "'min' (50) must not be above 'max' (20)"),
        ("min=50&max_length=20", "'min' (50) must not be above 'max_length' (20)"),
    ],
)
def test_error_messages_use_the_aliases_of_parameters(http, query, message):
    answer = http.post(f"/predict/text_summarize?{query}", json={"text": TEXT})
    assert error(answer, 400, "InvalidParameter") == message


@pytest.mark.parametrize("path", ["/nothing", "/invocations", "/v1/nothing", "/predictions"])
def test_unknown_route_is_not_found(http, path):
    error(http.get(path), 404, "NotFound")


@pytest.mark.parametrize("path", ["/models", "/models/resnet-50", "/metrics", "/models/../models"])
def test_management_and_metrics_are_closed(http, path):
    error(http.get(path), 403, "AccessDenied")


def test_readiness_routes_report_ready(http, version):
    deadline = time.monotonic() + 15
    while http.get("/v2/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for path in ("/v2/models/resnet-50/ready", f"/v2/models/resnet-50/versions/{version}/ready"):
        assert http.get(path).json() == {"name": "resnet-50", "ready": True}
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/ping").json() == {"status": "Healthy"}
    assert http.get("/v2/models/nobody/ready").status_code == 404


def test_model_metadata_is_returned(http, version):
    assert http.get("/v2").json()["version"] == "0.12.0"
    for path in ("/v2/models/resnet-50", f"/v2/models/resnet-50/versions/{version}"):
        metadata = http.get(path).json()
        assert (metadata["name"], metadata["versions"]) == ("resnet-50", [version])
    assert http.get("/v2/models/resnet-50/versions/9").status_code == 404
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "<html" in http.get("/docs").text


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
def test_client_works_with_every_protocol(front, server, protocol):
    at = through(front, server)
    with Client(endpoints=at, protocol=protocol, retries=0) as client:
        assert client.classify("resnet-50", IMAGE, top_k=1)[0].label == LABEL
        assert client.summarize("t5-small", TEXT)[0].text == SUMMARY
        with pytest.raises(InvalidImage):
            client.classify("resnet-50", b"x")
        with pytest.raises(ModelNotFound):
            client.classify("nobody", IMAGE)
    with Client(endpoints=at, protocol=protocol, retries=0, max_message_bytes=32 << 20) as client:
        with pytest.raises(TooLarge):
            client.classify("resnet-50", b"\0" * (18 << 20))
        assert client.server_ready()


def test_streams_and_large_responses_are_passed_on(server, http):
    with Client(endpoints=server.endpoints) as client:
        client.register(f"{toy(server.store, 'talkative', TALKATIVE)}.mar")
        try:
            with http.stream("POST", "/predictions/talkative", content=b"stream") as response:
                came = [(time.monotonic(), piece) for piece in response.iter_bytes()]
            assert b"".join(piece for _, piece in came) == b"firstlast"
            assert came[-1][0] - came[0][0] > 0.5
            assert http.post("/predictions/talkative", content=b"9000000").text == "x" * 9_000_000
        finally:
            client.unregister("talkative")
            (server.store / "talkative.mar").unlink()


def test_other_grpc_services_are_closed(front):
    with grpc.insecure_channel(front.config.grpc) as channel:
        call = channel.unary_unary(
            "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
