"""The client with a real TorchServe: equal results over every protocol, and management operations."""

import asyncio
import io
import json
import time

import pytest
from PIL import Image

from handlers.core.metrics import FLUSH_INTERVAL_S
from torchserve_models.cli import main
from torchserve_models.client import (
    PROTOCOLS,
    AsyncClient,
    Client,
    ClientError,
    Conflict,
    InvalidImage,
    InvalidParameter,
    InvalidText,
    ModelNotFound,
    NotFound,
    Overloaded,
    Tensor,
    TooLarge,
)
from training.images import draw_image
from training.reports import draw_example

LABEL, IMAGE = draw_image(77, 1)
TEXTS = [draw_example(77, index)[0] for index in range(3)]
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
rest_and_grpc = pytest.mark.parametrize("protocol", ["rest", "grpc"])


@pytest.fixture(scope="module")
def endpoints(server):
    return server.endpoints


@pytest.fixture
def client(endpoints, protocol):
    with Client(endpoints=endpoints, protocol=protocol) as client:
        yield client


@pytest.fixture(scope="module")
def expected(endpoints):
    """Return the labels and summaries over REST."""
    with Client(endpoints=endpoints) as client:
        return client.classify("resnet-50", IMAGE, top_k=3), client.summarize("t5-small", TEXTS)


@every_protocol
def test_image_is_classified(client, expected):
    labels = client.classify("resnet-50", IMAGE, top_k=3)
    assert labels[0].label == LABEL
    assert [label.label for label in labels] == [label.label for label in expected[0]]
    assert [label.score for label in labels] == pytest.approx(
        [label.score for label in expected[0]], rel=1e-3
    )


@every_protocol
def test_summarize_accepts_parameters_of_every_type(client, expected):
    assert client.summarize("t5-small", TEXTS) == expected[1]
    assert client.summarize("t5-small", TEXTS[0]) == expected[1][:1]
    parameters = {"num_beams": 2, "max_new_tokens": 8, "length_penalty": 0.5, "truncation": True}
    short = client.summarize("t5-small", TEXTS[0], **parameters)
    assert 0 < len(short[0].text) < len(expected[1][0].text)


@every_protocol
def test_truncated_input_is_reported(client):
    (summary,) = client.summarize("t5-small", " ".join(TEXTS * 200), max_new_tokens=8)
    assert summary.truncated


@every_protocol
@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lambda c: c.classify("resnet-50", b"no image"), InvalidImage),
        (lambda c: c.classify("resnet-50", IMAGE[: len(IMAGE) // 2]), InvalidImage),
        (lambda c: c.classify("resnet-50", IMAGE, top_k=0), InvalidParameter),
        (lambda c: c.classify("resnet-50", IMAGE, surprise="x"), InvalidParameter),
        (lambda c: c.summarize("t5-small", "   "), InvalidText),
        (lambda c: c.summarize("t5-small", TEXTS[0], num_beams=-1), InvalidParameter),
        (lambda c: c.summarize("t5-small", TEXTS[0], max_length="long"), InvalidParameter),
        (lambda c: c.classify("no-such-model", IMAGE), ModelNotFound),
        (lambda c: c.classify("resnet-50", bytes(17_000_000)), TooLarge),
    ],
)
def test_error_has_the_documented_class(client, operation, error):
    with pytest.raises(error) as caught:
        operation(client)
    assert "org.pytorch" not in caught.value.message
    assert client.classify("resnet-50", IMAGE)[0].label == LABEL


@every_protocol
def test_request_to_a_version_is_answered_by_it(client, protocol):
    version = client.describe("resnet-50").version
    if protocol == "open-inference":
        pytest.skip("TorchServe has no version on this route")
    assert client.classify("resnet-50", IMAGE, version=version)[0].label == LABEL
    with pytest.raises(ModelNotFound):
        client.classify("resnet-50", IMAGE, version="no-such-version")


@every_protocol
def test_health_is_reported(client):
    assert client.live()
    assert client.server_live()
    assert client.server_ready()
    assert client.ready()
    assert client.ready("t5-small")
    assert client.model_ready("t5-small")
    version = client.describe("t5-small").version
    assert client.model_metadata("t5-small").versions == (version,)
    with pytest.raises(ModelNotFound):
        client.ready("no-such-model")


@pytest.mark.parametrize("protocol", ["open-inference", "open-inference-grpc"])
def test_pixels_are_classified_as_a_tensor(client):
    image = Image.open(io.BytesIO(IMAGE)).convert("RGB")
    pixels = Tensor("image", "UINT8", (image.height, image.width, 3), tuple(image.tobytes()))
    answer = client.infer("resnet-50", [pixels], {"top_k": 1}, id="one")
    assert answer.id == "one"
    assert answer.output("label").data == (LABEL,)
    assert answer.output("label").shape == (1, 1)


@every_protocol
def test_sixty_four_concurrent_requests_are_answered(endpoints, protocol, expected):
    async def run():
        async with AsyncClient(endpoints=endpoints, protocol=protocol) as client:
            calls = []
            for index in range(64):
                match index % 4:
                    case 0:
                        calls.append(client.summarize("t5-small", TEXTS[0]))
                    case 1:
                        calls.append(client.classify("resnet-50", b"no image"))
                    case _:
                        calls.append(client.classify("resnet-50", IMAGE))
            return await asyncio.gather(*calls, return_exceptions=True)

    for index, answer in enumerate(asyncio.run(run())):
        match index % 4:
            case 0:
                assert answer == expected[1][:1]
            case 1:
                assert type(answer) is InvalidImage
            case _:
                assert answer[0].label == LABEL


@rest_and_grpc
def test_models_are_listed_and_described(client, server):
    names = {entry.name for entry in client.list_models()}
    assert {"resnet-50", "t5-small", "bart-large-cnn"} <= names
    model = client.describe("resnet-50", customized=True)
    assert model.ready
    assert model.metadata["weights"] == "starter"
    assert model.version.startswith("starter-")
    assert [described.version for described in client.describe_versions("resnet-50")] == [model.version]
    with pytest.raises(ModelNotFound):
        client.describe("resnet-50", "no-such-version")


@rest_and_grpc
def test_model_is_registered_scaled_and_unregistered(client, endpoints, protocol):
    name = f"copy-{protocol}"
    assert "registered" in client.register("resnet-50.mar", model_name=name)
    try:
        version = client.describe(name).version
        assert client.ready(name, version)
        assert client.classify(name, IMAGE)[0].label == LABEL
        with pytest.raises(Conflict):
            client.register("resnet-50.mar", model_name=name)
        assert version in client.set_default(name, version)
        with pytest.raises(ModelNotFound):
            client.set_default(name, "no-such-version")
        with Client(endpoints=endpoints) as rest_client:  # over gRPC, 0 means that the value is not set
            rest_client.scale(name, 0)
        assert client.describe(name).workers == ()
        assert not client.ready(name)
        with Client(endpoints=endpoints, protocol=protocol, retries=0) as hasty, pytest.raises(Overloaded):
            hasty.classify(name, IMAGE)
        client.scale(name, 1)
        assert client.ready(name)
    finally:
        assert "unregistered" in client.unregister(name)
    with pytest.raises(ModelNotFound):
        client.describe(name)


@rest_and_grpc
def test_registration_outside_the_store_is_rejected(client):
    for archive in ("no-such.mar", "../resnet-50.mar", "http://127.0.0.1:1/x.mar"):
        with pytest.raises((ClientError, NotFound)):
            client.register(archive)


@pytest.mark.parametrize("protocol", ["rest"])
def test_metrics_count_requests(client):
    def count():
        return client.metrics().total("handler_requests_total", ModelName="resnet-50")

    time.sleep(3 * FLUSH_INTERVAL_S)  # values of earlier requests
    before = count()
    for _ in range(3):
        client.classify("resnet-50", IMAGE)
    deadline = time.monotonic() + 10
    while count() < before + 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert count() == before + 3


@every_protocol
def test_client_commands_print_answers(server, endpoints, protocol, tmp_path, capsys):
    ports = {
        "--port": server.inference,
        "--management-port": server.management,
        "--metrics-port": server.metrics,
        "--grpc-port": server.grpc_inference,
        "--grpc-management-port": server.grpc_management,
        "--health-port": server.endpoints.health,
    }
    options = [part for name, address in ports.items() for part in (name, address.rpartition(":")[2])]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(IMAGE)
    assert main(["predict", "resnet-50", str(photo), "--json", "--protocol", protocol, *options]) == 0
    assert json.loads(capsys.readouterr().out)["labels"][0]["label"] == LABEL
    assert main(["predict", "t5-small", TEXTS[0], str(photo), "--protocol", protocol, *options]) == 1
    output = capsys.readouterr()
    assert output.out
    assert "(400)" in output.err
    assert main(["manage", "describe", "t5-small", "--protocol", protocol, *options]) == 0
    assert "ready" in capsys.readouterr().out
