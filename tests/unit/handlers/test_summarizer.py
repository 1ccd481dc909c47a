"""Tests of the summarizer: request formats, charsets, invalid inputs, limits and metrics."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from handlers.core.errors import ConfigurationError, OutOfMemory
from handlers.core.ignored_parameters import GENERATION
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationBatch
from handlers.summarizer import Summarizer
from tests.unit.handlers.context import FakeContext, flush_metrics
from tests.unit.handlers.text.tiny import SENTENCES, TEXTS, write_t5

HTTP = {"explain": "False", "url_path": ""}
JSON = HTTP | {"content-type": "application/json", "body": {"content-type": "application/json"}}
PLAIN = HTTP | {"content-type": "text/plain; charset=utf-8", "body": {"content-type": "text/plain"}}
LONG = " ".join(SENTENCES * 10)
TASK = {"prefix": "summarize: ", "max_length": 16, "min_length": 4, "num_beams": 3, "early_stopping": True}


class Worker:
    """A handler with its context. Each call of `handle` is one batch."""

    def __init__(self, folder: Path, **handler: Any) -> None:
        self.context = FakeContext(folder, {"handler": {"precision": "fp32", "threads": 1} | handler})
        self.handler = Summarizer()
        self.handler.initialize(self.context)

    def handle(self, *requests: tuple[dict[str, Any], dict[str, Any]]) -> list[Any]:
        """Send a batch of (fields, headers) and return the parsed answers."""
        self.context.receive([headers for _, headers in requests])
        replies = self.handler.handle([fields for fields, _ in requests], self.context)
        flush_metrics(self.handler)
        return [json.loads(reply) for reply in replies]

    def statuses(self, count: int) -> list[int]:
        return [self.context.statuses[index] for index in range(count)]


def native(inputs: Any, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"body": json.dumps({"inputs": inputs, "parameters": parameters}).encode()}, JSON


def plain(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"body": bytearray(body)}, PLAIN


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_t5(folder / "model", TASK)
    return folder


@pytest.fixture(scope="module")
def loaded_worker(archive: Path) -> Worker:
    return Worker(archive, max_items=4, max_characters=5000, max_new_tokens=50, max_num_beams=4)


@pytest.fixture
def worker(loaded_worker: Worker) -> Worker:
    """Return the worker that all tests share, without the metrics of earlier tests."""
    loaded_worker.context.metrics.clear()
    return loaded_worker


def test_every_form_gives_the_same_summary(worker: Worker) -> None:
    text = TEXTS[0]
    form = HTTP | {"content-type": "multipart/form-data; boundary=x", "text": {"content-type": ""}}
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    answers = worker.handle(
        plain(text.encode()),
        native(text),
        native([text]),
        ({"text": text.encode()}, form),
        ({"data": bytearray(text.encode())}, {}),
        ({"body": json.dumps({"inputs": [tensor]}).encode()}, JSON),
    )
    assert worker.statuses(6) == [200] * 6
    summary = answers[0][0]["summary_text"]
    assert summary
    assert answers[:5] == [[{"summary_text": summary}]] * 5
    assert answers[5]["outputs"] == [
        {"name": "summary_text", "datatype": "BYTES", "shape": [1], "data": [summary]},
        {"name": "truncated", "datatype": "BOOL", "shape": [1], "data": [False]},
    ]


def test_several_texts_are_answered_in_order_like_single_texts(worker: Worker) -> None:
    texts = list(TEXTS[:4])
    [together] = worker.handle(native(texts))
    assert together == [worker.handle(native(text))[0][0] for text in texts]


def test_parameter_is_accepted_in_every_form(worker: Worker) -> None:
    tensors = [
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[0]]},
        {"name": "max_new_tokens", "shape": [1], "datatype": "INT64", "data": [2]},
        {"name": "min_new_tokens", "shape": [1], "datatype": "INT64", "data": [0]},
    ]
    answers = worker.handle(
        native(TEXTS[0], max_new_tokens=2, min_new_tokens=0),
        native(
            TEXTS[0], generate_parameters={"max_new_tokens": 2, "min_new_tokens": 0}, truncation="only_first"
        ),
        ({"data": TEXTS[0].encode(), "max_new_tokens": b"2", "min_new_tokens": b"0"}, {}),
        ({"body": json.dumps({"inputs": tensors}).encode()}, JSON),
    )
    short = answers[0][0]["summary_text"]
    assert short != worker.handle(native(TEXTS[0]))[0][0]["summary_text"]
    assert [answer[0]["summary_text"] for answer in answers[:3]] == [short] * 3
    assert answers[3]["outputs"][0]["data"] == [short]


def parts(*fields: tuple[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a multipart form as nginx forwards it. Fields are (part header after its name, content)."""
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; name=text\r\n"
        + head.encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for head, content in fields
    )
    part_headers = {
        "content-type": "application/octet-stream",
        "body": {"content-type": "application/octet-stream"},
    }
    return {"body": bytearray(body + b"--x--\r\n")}, HTTP | part_headers | {
        "X-Form-Content-Type": "multipart/form-data; boundary=x"
    }


CHARSETS = (
    "utf-8",
    "UTF-16LE",
    "utf-16be",
    "utf-16",
    "utf-32",
    "iso-8859-1",
    "windows-1252",
    "cp850",
    "latin1",
)


@pytest.mark.parametrize("charset", CHARSETS)
def test_text_is_decoded_by_its_declared_charset(worker: Worker, charset: str) -> None:
    text = "The café beside the old bridge: £3,400, said the mayor."
    content = text.encode(charset)
    types = HTTP | {
        "content-type": f'text/plain; charset="{charset}"',
        "body": {"content-type": "text/plain"},
    }
    json_types = JSON | {"content-type": f"application/json; charset={charset}"}
    source = json.dumps({"inputs": text, "parameters": {"num_beams": 1}}, ensure_ascii=False).encode(charset)
    answers = worker.handle(
        native(text),
        ({"body": bytearray(content)}, types),
        parts((f"Content-Type: text/plain;charset={charset}", content)),
        ({"body": bytearray(source)}, json_types),
        ({"body": bytearray(source)}, types),
        native(text, num_beams=1),
    )
    assert worker.statuses(6) == [200] * 6
    assert answers[1] == answers[2] == answers[0]
    assert answers[3] == answers[4] == answers[5]


def test_texts_in_other_alphabets_are_decoded(worker: Worker) -> None:
    samples = {
        "shift_jis": "橋は雨",
        "windows-31j": "①橋",
        "euc-kr": "다리",
        "gb18030": "桥梁",
        "koi8-r": "мост",
    }
    for charset, text in samples.items():
        types = HTTP | {
            "content-type": f"text/plain; charset={charset}",
            "body": {"content-type": "text/plain"},
        }
        codec = "cp932" if charset == "windows-31j" else charset
        answers = worker.handle(({"body": bytearray(text.encode(codec))}, types), native(text))
        assert answers[0] == answers[1], charset


def in_charset(body: bytes, charset: str) -> tuple[dict[str, Any], dict[str, Any]]:
    types = {"content-type": f"text/plain; charset={charset}", "body": {"content-type": "text/plain"}}
    return {"body": bytearray(body)}, HTTP | types


BAD = [
    (
        in_charset(b"odd", "utf-16le"),
        400,
        "InvalidText",
        "the text is UTF-8, but its Content-Type declares utf-16le",
    ),
    (
        in_charset(b"caf\xe9", "us-ascii"),
        400,
        "InvalidText",
        "the text is not valid us-ascii, its declared charset",
    ),
    (in_charset(b"caf\xe9", "utf-8"), 400, "InvalidText", "the text is not UTF-8"),
    (in_charset(b"uryyb", "rot13"), 400, "InvalidRequest", "the charset 'rot13' is not known"),
    (in_charset(b"x", "zip"), 400, "InvalidRequest", "the charset 'zip' is not known"),
    (in_charset(b"x", "unicode_escape"), 400, "InvalidRequest", "the charset 'unicode_escape' is not known"),
    (in_charset(b"x", "x" * 5000), 400, "InvalidRequest", "is not known"),
    (parts(("", b"Rain."), ("", b"Sun.")), 400, "InvalidRequest", "the form has the field 'text' twice"),
    (plain(b'{"inputs": "Rain.", }'), 400, "InvalidRequest", "a body that looks like JSON is parsed as JSON"),
    (plain(b"{'inputs': 'Rain.'}"), 400, "InvalidRequest", "not valid JSON"),
    (plain(b'{"inputs": "a"}\n{"inputs": "b"}'), 400, "InvalidRequest", "not valid JSON: Extra data"),
    (plain(b'{"text": "Rain."}'), 400, "InvalidRequest", "unknown field 'text'"),
    (plain(b'["Rain.", "Sun."]'), 400, "InvalidRequest", "not a list"),
    (plain(b'"caf\\u00e9"'), 400, "InvalidRequest", "not a string"),
    (plain(b'{"inputs": "x", "parameters": {"num_beams": 100}}'), 400, "InvalidParameter", "'num_beams'"),
    (plain(b"\xff\xfd"), 400, "InvalidText", "UTF-8"),
    (plain(b"\xff\xfe"), 400, "InvalidRequest", "the body is empty"),
    (plain(b" \n "), 400, "InvalidText", "empty"),
    (native(""), 400, "InvalidText", "empty"),
    (({"body": b'{"inputs": "half \\ud83d a pair"}'}, JSON), 400, "InvalidText", "surrogate"),
    (native("\0"), 400, "InvalidText", "empty"),
    (native(["fine", " "]), 400, "InvalidText", "empty"),
    (native("a" * 5001), 413, "TextTooLong", "5000 characters"),
    (plain(b"\xff" * 20_001), 413, "TextTooLong", "5000 characters"),
    (native(LONG, truncation=False), 413, "TextTooLong", "at most 64"),
    (native(LONG, truncation="do_not_truncate"), 413, "TextTooLong", "at most 64"),
    (native(["x"] * 5), 413, "TooManyItems", "4"),
    (native("x", num_beams=-1), 400, "InvalidParameter", "'num_beams' must be an integer from 1 to 4"),
    (native("x", max_length=1e9), 400, "InvalidParameter", "'max_length' must be an integer from 2 to 51"),
    (native("x", max_length="30"), 400, "InvalidParameter", "'max_length' must be an integer"),
    (native("x", min_length=20, max_length=10), 400, "InvalidParameter", "'min_length' (20)"),
    (native("x", top_k=3), 400, "InvalidParameter", "'top_k' is not adjustable: set it to 50 or 0"),
    (native("x", topk=3), 400, "InvalidParameter", "no_repeat_ngram_size"),
    (
        native("x", generate_parameters={"temperature": 0.7}),
        400,
        "InvalidParameter",
        "'temperature' is not adjustable",
    ),
    (native("x", do_sample=True), 400, "InvalidParameter", "set it to false or omit it, not true"),
    (native("x", num_return_sequences=True), 400, "InvalidParameter", "set it to 1"),
    (native("x", truncation="longest_last"), 400, "InvalidParameter", "longest_first"),
    (native(LONG, truncation="only_second"), 413, "TextTooLong", "at most 64"),
    (
        ({"body": b'{"inputs": "x", "parameters": {"length_penalty": NaN}}'}, JSON),
        400,
        "InvalidRequest",
        "NaN",
    ),
    (native({"text": "x"}), 400, "InvalidRequest", "string"),
    (native([]), 400, "InvalidRequest", "empty"),
]


@pytest.mark.parametrize(("request_", "code", "kind", "words"), BAD, ids=range(len(BAD)))
def test_bad_item_is_rejected_without_affecting_its_neighbors(
    worker: Worker, request_: tuple[dict[str, Any], dict[str, Any]], code: int, kind: str, words: str
) -> None:
    alone = worker.handle(native(TEXTS[1]))[0]
    first, bad, last = worker.handle(native(TEXTS[1]), request_, native(TEXTS[1]))
    assert worker.statuses(3) == [200, code, 200]
    assert (bad["code"], bad["type"]) == (code, kind)
    assert words in bad["message"]
    assert first == last == alone


@pytest.mark.parametrize(
    "text",
    [
        "a\0b\x01c",
        "שלום עולם، مرحبا بالعالم",
        "😀" * 50,
        "e" + "\u0301" * 300,
        "<pad></s><unk> </s>",
        "\ufffe\U0010ffff\ue000 x",
        "w" * 5000,
        LONG,
    ],
)
def test_unusual_texts_are_summarized(worker: Worker, text: str) -> None:
    [answer] = worker.handle(native(text))
    assert worker.statuses(1) == [200]
    assert isinstance(answer[0]["summary_text"], str)


@pytest.mark.parametrize("name", ["</s>", "<pad>", "<unk>", "<s>"])
def test_control_token_name_in_text_is_plain_text(worker: Worker, name: str) -> None:
    text = f"The mayor spoke {name} about the bridge."
    worker.handle(native(text), native(text.replace(name, "")))
    assert worker.statuses(2) == [200, 200]
    encoded = worker.handler.decode(text, {}).input_ids
    assert len(encoded) > len(worker.handler.decode(text.replace(name, ""), {}).input_ids) + 1
    assert encoded.count(1) == 1, "only the end of the text is </s>"
    worker.handle(native(name))
    assert worker.statuses(1) == [200]


def test_word_of_one_megabyte_is_summarized(archive: Path) -> None:
    [answer] = Worker(archive).handle(plain(b"w" * 1_000_000))
    assert answer[0]["truncated"] is True


def test_truncated_text_is_marked(worker: Worker) -> None:
    short, long = worker.handle(native(TEXTS[0]), native(LONG))
    assert "truncated" not in short[0]
    assert long[0]["truncated"] is True
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [TEXTS[0], LONG]}
    [answer] = worker.handle(({"body": json.dumps({"inputs": [tensor]}).encode()}, JSON))
    assert answer["outputs"][1]["data"] == [False, True]


def test_open_inference_over_grpc_is_decoded_from_base64(worker: Worker) -> None:
    data = [base64.b64encode(TEXTS[0].encode()).decode()]
    message = {
        "model_name": "model",
        "id": "7",
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": data}],
    }
    headers = {"body": {"content-type": "application/json"}}
    [answer] = worker.handle(({"body": json.dumps(message).encode()}, headers))
    assert answer["id"] == "7"
    assert answer["outputs"][0]["data"] == [worker.handle(native(TEXTS[0]))[0][0]["summary_text"]]


def test_tokens_requests_and_failures_are_counted(worker: Worker) -> None:
    def counted(name: str) -> float:
        return sum(worker.context.metrics[f"handler_{name}"].values())

    worker.handle(native([TEXTS[0], TEXTS[1]], min_new_tokens=5, max_new_tokens=5), native(""))
    assert counted("requests_total") == 2
    assert counted("generated_tokens_total") == 10
    assert counted("failed_items_total") == 1


@pytest.mark.parametrize("num_tokens", [10, None])
def test_drafts_are_counted_and_do_not_change_summaries(archive: Path, num_tokens: int | None) -> None:
    worker = Worker(archive, prompt_lookup_num_tokens=num_tokens)
    # A summary this long repeats itself, which the drafts from the generated text notice.
    request = native(list(TEXTS), num_beams=1, min_new_tokens=60, max_new_tokens=60, no_repeat_ngram_size=0)
    assert worker.handle(request) == Worker(archive, prompt_lookup_num_tokens=None).handle(request)
    drafted, accepted = (
        sum(worker.context.metrics[f"handler_{name}_total"].values())
        for name in ("draft_tokens", "accepted_draft_tokens")
    )
    assert (drafted > accepted > 0) if num_tokens else (drafted == accepted == 0)
    worker.context.metrics.clear()
    worker.handle(native(TEXTS[0], num_beams=1, max_new_tokens=1, min_new_tokens=0))  # too short for a draft
    assert not worker.context.metrics["handler_draft_tokens_total"]
    assert not worker.context.metrics["handler_accepted_draft_tokens_total"]
    description = worker.handler.describe()
    assert description.get("drafts", {}).get("prompt_lookup_num_tokens") == num_tokens


def test_only_the_item_that_is_out_of_memory_fails(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = worker.handler._engine
    run = engine.run

    def small_memory(batch: GenerationBatch) -> GeneratedTokens:
        if sum(map(len, batch.texts)) > 60:
            raise OutOfMemory("there is not enough memory for this text")
        return run(batch)

    alone = worker.handle(native("Rain."))[0]
    monkeypatch.setattr(engine, "run", small_memory)
    good, bad = worker.handle(native("Rain."), native(LONG))
    assert worker.statuses(2) == [200, 507]
    assert (good, bad["type"]) == (alone, "OutOfMemory")


def test_description_has_limits_and_defaults(worker: Worker) -> None:
    [description] = worker.handle(({}, {"describe": "True"}))
    assert description["max_input_tokens"] == 64
    assert description["prefix"] == "summarize: "
    assert description["defaults"]["max_new_tokens"] == 15
    parameters = {parameter["name"]: parameter for parameter in description["parameters"]}
    assert parameters["num_beams"]["expected"] == "an integer from 1 to 4"
    assert (description["engine"], description["precision"]) == ("native", "fp32")
    assert description["reason"] == "the fastest for this architecture"


def test_limits_apply_to_the_models_defaults(archive: Path) -> None:
    worker = Worker(archive, max_new_tokens=2, max_num_beams=1, max_input_tokens=20)
    assert worker.handler.describe()["defaults"]["num_beams"] == 1
    [answer] = worker.handle(native(TEXTS[0]))
    assert answer[0]["truncated"] is True
    assert worker.context.metrics["handler_generated_tokens_total"] == {(): 2}


def test_unknown_setting_fails_initialization(archive: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_new_tokens"):
        Worker(archive, max_tokens=5)


def test_parameters_without_effect_are_ignored(worker: Worker) -> None:
    """Values are sent one by one and together, in JSON and as form fields."""
    (alone,) = worker.handle(native(TEXTS[1]))
    for parameter in GENERATION:
        for value in parameter.values:
            assert worker.handle(native(TEXTS[1], **{parameter.name: value})) == [alone]
    together = {parameter.name: parameter.values[0] for parameter in GENERATION}
    null = dict.fromkeys(("max_length", "max_time", "unheard_of"))
    fields = {name: json.dumps(value).encode() for name, value in together.items()}
    (nested,) = worker.handle(native(TEXTS[1], generate_parameters=together, **null))
    (form,) = worker.handle(({"text": TEXTS[1].encode(), **fields}, {"url_path": ""}))
    assert nested == form == alone
    (short,) = worker.handle(native(SENTENCES[0]))
    assert worker.handle(native(SENTENCES[0], truncation="only_second")) == [short]


class CapturingEngine:
    """Stands for an engine with CUDA graphs. A batch of more than `max_tokens` input tokens is out of memory."""

    captures_steps = True

    def __init__(self, max_tokens: int, error: str = "CUDA out of memory") -> None:
        self.sizes: list[int] = []
        self._max_tokens, self._error = max_tokens, error

    def run(self, batch: GenerationBatch) -> GeneratedTokens:
        self.sizes.append(len(batch.texts))
        if sum(map(len, batch.texts)) > self._max_tokens:
            raise RuntimeError(self._error)
        return [[] for _ in batch.texts]


def warm_up_shapes(handler: Summarizer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """Return the texts, tokens, beams and new tokens of each batch of the warm-up, without running it."""
    shapes = []

    def predict(items: Any) -> None:
        parameters = items[0].parameters
        shapes.append((len(items), len(items[0].input_ids), parameters.num_beams, parameters.max_new_tokens))

    monkeypatch.setattr(handler, "predict", predict)
    handler.warm_up()
    return shapes


def test_warm_up_on_a_gpu_runs_the_shapes_of_requests_without_parameters(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Worker(archive, max_input_tokens=80, max_new_tokens=50, max_batch_tokens=300).handler
    handler.batch_size = 8
    on_cpu = warm_up_shapes(handler, monkeypatch)
    assert {(texts, new_tokens) for texts, _, _, new_tokens in on_cpu} == {(1, 4)}
    monkeypatch.setattr(handler, "_engine", CapturingEngine(0))
    # The defaults are 3 beams and 15 new tokens. Four texts of 32 tokens would need 4 x (32 + 3 x 15) = 308.
    typical = [(1, 32, 3, 15), (1, 64, 3, 15), (1, 80, 3, 15), (2, 32, 3, 15), (2, 64, 3, 15), (2, 80, 3, 15)]
    assert warm_up_shapes(handler, monkeypatch)[len(on_cpu) :] == typical
    monkeypatch.setattr("handlers.summarizer.GPU_WARM_UP_S", -1)
    assert warm_up_shapes(handler, monkeypatch) == on_cpu


def test_warm_up_on_a_gpu_includes_the_largest_batch(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Worker(archive, max_input_tokens=32).handler
    handler.batch_size = 12
    engine = CapturingEngine(10_000)
    monkeypatch.setattr(handler, "_engine", engine)
    handler.warm_up()
    assert engine.sizes[-5:] == [1, 2, 4, 8, 12]


def test_warm_up_on_a_gpu_ends_early_without_memory(
    archive: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Worker(archive, max_input_tokens=32).handler
    handler.batch_size = 8
    engine = CapturingEngine(100)
    monkeypatch.setattr(handler, "_engine", engine)
    handler.warm_up()
    assert engine.sizes[-3:] == [1, 2, 4]
    assert "the warm-up ends early: no memory for a batch of 4" in caplog.text
    monkeypatch.setattr(handler, "_engine", CapturingEngine(100, "another error"))
    with pytest.raises(RuntimeError, match="another error"):
        handler.warm_up()
