"""Classification and summarization return equal results over every protocol, sync and async."""

from pathlib import Path

import pytest

from torchserve_models.client import (
    PROTOCOLS,
    InvalidImage,
    InvalidParameter,
    InvalidRequest,
    InvalidText,
    Label,
    ModelNotFound,
    Overloaded,
    Summary,
    WorkerDied,
)

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)


def test_classify_accepts_bytes(call, connection, protocol):
    labels = call(lambda c: c.classify("images", b"12345"), protocol=protocol, **connection)
    assert labels == [
        Label("5 bytes, 0.5", 0.5),
        Label("5 bytes, 0.25", 0.25),
        Label("5 bytes, 0.125", 0.125),
    ]


def test_classify_accepts_path_and_top_k(call, connection, protocol, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(range(256)))
    labels = call(lambda c: c.classify("images", path, top_k=2), protocol=protocol, **connection)
    assert labels == [Label("256 bytes, 0.5", 0.5), Label("256 bytes, 0.25", 0.25)]


def test_summarize_accepts_one_text(call, connection, protocol):
    text = 'A "report", with accents é and 日本語\nand a second line.'
    summaries = call(lambda c: c.summarize("texts", text), protocol=protocol, **connection)
    assert summaries == [Summary(f"{text} {{}}")]


def test_summarize_accepts_several_texts_and_parameters_of_all_types(call, connection, protocol):
    parameters = {"min_length": 3, "length_penalty": 2.0, "truncation": True, "strategy": "beam"}
    summaries = call(
        lambda c: c.summarize("texts", ["one", "x" * 101], top_k=None, **parameters),
        protocol=protocol,
        **connection,
    )
    note = '{"length_penalty": 2.0, "min_length": 3, "strategy": "beam", "truncation": true}'
    assert summaries == [Summary(f"one {note}"), Summary(f"{'x' * 101} {note}", truncated=True)]


@pytest.mark.parametrize(
    ("model", "image", "parameters", "error", "code"),
    [
        ("images", b"bad", {}, InvalidImage, 400),
        ("images", b"good", {"top_k": "many"}, InvalidParameter, 400),
        ("images", b"good", {"beams": 1}, InvalidParameter, 400),
        ("images", b"good", {"top_k": float("nan")}, InvalidParameter, 400),
        ("images", b"good", {"top_k": 2**64}, InvalidParameter, 400),
        ("images", b"good", {"top_k": [1]}, InvalidParameter, 400),
        ("images", "good", {}, InvalidRequest, 400),
        ("unknown", b"good", {}, ModelNotFound, None),
        ("", b"good", {}, InvalidRequest, 400),
        ("busy", b"good", {}, Overloaded, None),
        ("dying", b"good", {}, WorkerDied, 500),
    ],
)
def test_errors_of_predictions_have_their_class(
    call, connection, protocol, model, image, parameters, error, code
):
    with pytest.raises(error) as caught:
        call(lambda c: c.classify(model, image, **parameters), protocol=protocol, retries=0, **connection)
    assert type(caught.value) is error
    assert code is None or caught.value.code == code
    assert "org.pytorch" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "error"), [([], InvalidRequest), ([1], InvalidRequest), ("\ud800", InvalidText)]
)
def test_invalid_text_is_rejected_before_sending(call, connection, protocol, fake, text, error):
    with pytest.raises(error):
        call(lambda c: c.summarize("texts", text), protocol=protocol, **connection)
    assert fake.received == []


def test_missing_file_raises_os_error(call, connection, protocol):
    with pytest.raises(FileNotFoundError):
        call(lambda c: c.classify("images", Path("no/such.jpg")), protocol=protocol, **connection)


def test_version_is_sent_where_torchserve_accepts_one(call, connection, protocol, fake):
    def classify(client):
        return client.classify("images", b"12345", version="2.0-a")

    if protocol == "open-inference":
        with pytest.raises(InvalidRequest, match="takes no version"):
            call(classify, protocol=protocol, **connection)
        return
    assert call(classify, protocol=protocol, **connection)[0].label == "5 bytes, 0.5"
    expected = {
        "rest": ("POST", "/predictions/images/2.0-a"),
        "grpc": "Predictions",
        "open-inference-grpc": "ModelInfer",
    }
    assert fake.received == [expected[protocol]]
