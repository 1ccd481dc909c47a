"""Requests with a known answer: good requests with their label or summary, and bad requests, which get a 4xx."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from tests.chaos.errors import ChaosError
from torchserve_models.client import Endpoints

SCORE_TOLERANCE = 0.02
"""Maximum difference of scores for the same input in different batches; other inputs differ more."""
INPUTS_PER_MODEL = 6
JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}
TEXT = {"content-type": "text/plain"}
TOO_LARGE = 17 * 2**20

Task = Literal["image", "text"]
Form = Literal["native", "json", "open-inference", "known-route"]


@dataclass(frozen=True)
class Answer:
    """Label with its score, or summary."""

    text: str
    score: float = 0.0

    def matches(self, other: object) -> bool:
        return (
            isinstance(other, Answer)
            and self.text == other.text
            and abs(self.score - other.score) <= SCORE_TOLERANCE
        )


@dataclass(frozen=True)
class GoodCase:
    """Input of a model, with the known answer. `key` is the model's name on the gateway's /predict route."""

    name: str
    model: str
    task: Task
    content: bytes
    answer: Answer
    key: str = ""


@dataclass(frozen=True)
class Request:
    """REST request. With `may_close`, the server may close the connection instead of answering."""

    name: str
    model: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    method: str = "POST"
    may_close: bool = False


@dataclass(frozen=True)
class BadCall:
    """Bad request for the Python client, over any of its protocols."""

    name: str
    model: str
    task: Task
    content: bytes
    parameters: Mapping[str, Any] = field(default_factory=dict)


def request_of(good: GoodCase, form: Form) -> Request:
    """Return the REST request for an input in the given form."""
    encoded = base64.b64encode(good.content).decode()
    name = f"{good.name}/{form}"
    path = f"/predictions/{good.model}"
    image = good.task == "image"
    if form == "native":
        return Request(name, good.model, path, OCTETS if image else TEXT, good.content)
    if form == "json":
        value: Any = {"inputs": encoded if image else good.content.decode()}
    elif form == "known-route":
        if image:
            boundary = "chaos-boundary"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
            body = head.encode() + good.content + f"\r\n--{boundary}--\r\n".encode()
            headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
            return Request(name, good.model, "/predict", headers, body)
        path, value = f"/predict/text_summarize?model={good.key}", {"text": good.content.decode()}
    else:
        tensor = {"name": good.task, "datatype": "BYTES", "shape": [1]}
        value = {"inputs": [tensor | {"data": [encoded if image else good.content.decode()]}]}
        path = f"/v2/models/{good.model}/infer"
    return Request(name, good.model, path, JSON, json.dumps(value).encode())


def read_answer(body: bytes) -> Answer | None:
    """Return the first label or summary in a REST answer of any form; None if the body contains neither."""
    try:
        value = json.loads(body)
        if isinstance(value, dict) and "outputs" in value:
            outputs = {output["name"]: output["data"] for output in value["outputs"]}
            if "label" in outputs:
                return Answer(str(outputs["label"][0]), float(outputs["score"][0]))
            return Answer(str(outputs["summary_text"][0]))
        first = value[0] if isinstance(value, list) else value
        if "label" in first:
            return Answer(str(first["label"]), float(first["score"]))
        return Answer(str(first["summary_text"]))
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def find_good(endpoints: Endpoints, models: Sequence[str]) -> list[GoodCase]:
    """Return good requests with their answers, which an idle server gives.

    Raises:
        ChaosError: A request failed, or a model gives the same answer to every input.
    """
    from training.images import draw_image
    from training.reports import draw_example

    keys = {"t5-small": "t5", "bart-large-cnn": "bart"}
    cases: list[GoodCase] = []
    with httpx.Client(base_url=endpoints.inference, timeout=120) as connection:
        for model in models:
            text = model in keys
            task: Task = "text" if text else "image"
            distinct: list[GoodCase] = []
            for number in range(4 * INPUTS_PER_MODEL):
                content = draw_example(31, number)[0].encode() if text else draw_image(31, number)[1]
                case = GoodCase(f"{model}/{number}", model, task, content, Answer(""), keys.get(model, ""))
                answer = _request_answer(connection, request_of(case, "native"))
                if all(_differs(answer, other.answer) for other in distinct):
                    distinct.append(GoodCase(case.name, model, task, content, answer, case.key))
                if len(distinct) == INPUTS_PER_MODEL:
                    break
            if len(distinct) < 2:
                raise ChaosError(
                    f"{model} gives the same answer to every input, so swapped answers are undetectable"
                )
            cases += distinct
    return cases


def _request_answer(connection: httpx.Client, request: Request) -> Answer:
    response = connection.post(request.path, headers=dict(request.headers), content=request.body)
    answer = read_answer(response.content) if response.status_code == 200 else None
    if answer is None:
        raise ChaosError(f"{request.path}: HTTP {response.status_code}, {response.text[:200]}")
    return answer


def _differs(one: Answer, other: Answer) -> bool:
    return one.text != other.text or abs(one.score - other.score) > 3 * SCORE_TOLERANCE


def bad_requests(cases: Sequence[GoodCase], with_front: bool) -> list[Request]:
    """Return invalid REST requests; the server must answer each with a 4xx status."""
    requests: list[Request] = []
    for model in dict.fromkeys(case.model for case in cases):
        case = next(case for case in cases if case.model == model)
        path, infer = f"/predictions/{model}", f"/v2/models/{model}/infer"
        encoded = base64.b64encode(case.content).decode() if case.task == "image" else case.content.decode()
        unknown = json.dumps({"inputs": encoded, "parameters": {"no_such_parameter": 1}}).encode()
        wrong = json.dumps({"inputs": [{"name": "nothing", "shape": [2], "datatype": "BYTES", "data": []}]})
        requests += [
            Request(f"{model}/malformed JSON", model, path, JSON, b'{"inputs": '),
            Request(f"{model}/empty", model, path, OCTETS),
            Request(f"{model}/unknown parameter", model, path, JSON, unknown),
            Request(f"{model}/wrong tensors", model, infer, JSON, wrong.encode()),
            Request(f"{model}/no input", model, path, JSON, b"{}"),
        ]
        junk = b"\xff\xfe not an image, no UTF-8 either"
        requests.append(Request(f"{model}/unreadable", model, path, OCTETS, junk))
    model = cases[0].model
    zeros = bytes(TOO_LARGE)
    requests += [
        Request("unknown model", "", "/predictions/no-such-model", OCTETS, b"x"),
        Request("unknown version", "", f"/predictions/{model}/99.9", OCTETS, b"x"),
        Request("unknown route", "", "/no/such/route", OCTETS, b"x"),
        Request("wrong method", "", "/predictions/no-such-model", method="DELETE"),
        Request("too large", "", f"/predictions/{model}", OCTETS, zeros, may_close=True),
    ]
    if with_front:
        requests += [
            Request("known route/malformed JSON", "", "/predict/text_summarize?model=t5", JSON, b"{"),
            Request("known route/no pixels", "", "/model", JSON, b'{"img": []}'),
        ]
    return requests


def bad_calls(cases: Sequence[GoodCase]) -> list[BadCall]:
    """Return requests that the Python client sends but the server must reject."""
    calls = []
    for model in dict.fromkeys(case.model for case in cases):
        case = next(case for case in cases if case.model == model)
        limit = {"top_k": 0} if case.task == "image" else {"num_beams": -1}
        empty = b"not an image" if case.task == "image" else b"   "
        calls += [
            BadCall(f"{model}/bad input", model, case.task, empty),
            BadCall(f"{model}/out of range", model, case.task, case.content, limit),
            BadCall(f"{model}/unknown parameter", model, case.task, case.content, {"no_such_parameter": 1}),
        ]
    return [*calls, BadCall("unknown model", "no-such-model", cases[0].task, cases[0].content)]
