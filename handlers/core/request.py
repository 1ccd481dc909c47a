"""The door: every form a request can have becomes one `Request`, and nothing behind it knows which it was.

Forms: a raw body; JSON `{"inputs": ..., "parameters": {...}}`; multipart or urlencoded fields; TorchServe's gRPC
map of bytes; the Open Inference Protocol, from REST (JSON, and binary data behind it) and from TorchServe's gRPC;
KServe's first protocol, `{"instances": [...]}`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from handlers.core.body_limits import check_bounds
from handlers.core.compression import decompress
from handlers.core.errors import InvalidRequest, TooManyItems
from handlers.core.forms import HEADER as FORM_HEADER
from handlers.core.forms import joined, open_form
from handlers.core.kserve_v1 import FIELDS, PredictionsReply, read_instances
from handlers.core.open_inference import HEADER_LENGTH, OpenInferenceReply, read_id, read_message
from handlers.core.passed_over import check_options
from handlers.core.reply import NativeReply, Reply
from handlers.core.tensor import Payload

JSON_KEYS = ("inputs", "parameters")
_OPEN_INFERENCE_KEYS = {"id", "model_name", "model_version", "outputs"}


@dataclass(frozen=True)
class Request:
    """`payloads`: one an input. `parameters`: as sent, not checked yet. `reply` writes the answer."""

    payloads: Sequence[Payload]
    parameters: Mapping[str, Any]
    reply: Reply


@dataclass
class Door:
    """Reads one request; `reply` is right from the first moment on, so that errors keep to the protocol.

    `fields` is TorchServe's `data[i]`, `headers` its request headers; `payload_fields` are the names under which
    a form or a tensor carries the input. `parameter_names`: what a tensor of another name may be beside the input.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    model_name: str
    model_version: str
    payload_fields: tuple[str, ...]
    max_items: int
    takes_numbers: bool = True
    parameter_names: Collection[str] = ()
    reply: Reply = field(default_factory=NativeReply)

    def __post_init__(self) -> None:
        if self.is_grpc and "body" in self.fields and self._is_json():
            self.reply = OpenInferenceReply("", self.model_name, self.model_version, grpc=True)

    @property
    def is_grpc(self) -> bool:
        return comes_by_grpc(self.headers)

    @property
    def is_open_inference_route(self) -> bool:
        """TorchServe adds `explain` and `url_path` on /predictions, and on /v2/models/NAME/infer only the first."""
        return "explain" in self.headers and "url_path" not in self.headers

    def header(self, name: str) -> str:
        """Header names keep the client's case."""
        for key, value in self.headers.items():
            if key.lower() == name and isinstance(value, str):
                return value
        return ""

    def read(self) -> Request:
        """Raises BadRequest or TooLarge."""
        if (encoding := self.header("content-encoding").strip().lower()) not in ("", "identity"):
            self.fields = {**self.fields, "body": decompress(self.fields.get("body"), encoding)}
        if sent := self.header(FORM_HEADER):
            self.fields, self.headers = open_form(sent, self.fields, self.headers, self.payload_fields)
        payloads, parameters = self._body() if "body" in self.fields else self._form()
        if len(payloads) > self.max_items:
            raise TooManyItems(f"{len(payloads)} inputs in one request; at most {self.max_items} are allowed")
        return Request(payloads, _flat(parameters), self.reply)

    def _body(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        body = self.fields["body"]
        # Query parameters, on the routes where TorchServe hands them on, arrive as further fields.
        # `model_name`, which /invocations takes to find the model, is none of its parameters.
        query = {
            name: _scalar(value) for name, value in self.fields.items() if name not in ("body", "model_name")
        }
        length = self.header(HEADER_LENGTH.lower())
        if not (length or self.is_open_inference_route or self._is_json()):
            if not body:
                raise InvalidRequest(
                    "the body is empty; send the input as the body, or JSON with the field 'inputs'"
                )
            return (body.encode() if isinstance(body, str) else bytes(body),), _parameters_field(query)
        binary = None
        if length:
            body, binary = _split(body, length)
            if not body:
                return self._raw_binary(binary), query
        check_bounds(body, self.takes_numbers)
        message = parse_json(body)
        if not isinstance(message, dict):
            raise InvalidRequest(
                f"the JSON body must be an object with the field 'inputs', not {_kind(message)}"
            )
        if "instances" in message:
            return self._instances(message, query)
        if self.is_grpc or self.is_open_inference_route or length or _is_open_inference(message):
            payloads, parameters = self._open_inference(message, binary)
            return payloads, joined(query, parameters)
        return self._native(message, query)

    def _open_inference(
        self, message: dict[str, Any], binary: memoryview | None
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        reply = OpenInferenceReply("", self.model_name, self.model_version, self.is_grpc)
        self.reply = reply
        self.reply = reply = replace(reply, id=read_id(message))
        read = read_message(
            message, self.payload_fields, self.is_grpc, binary, parameter_names=self.parameter_names
        )
        self.reply = replace(reply, wanted=read.wanted, binary=read.binary)
        return read.payloads, read.parameters

    def _raw_binary(self, binary: memoryview) -> Sequence[Payload]:
        """The extension's shortest form: a header length of 0, and the body is the one input's one element."""
        self.reply = OpenInferenceReply("", self.model_name, self.model_version)
        if not binary:
            raise InvalidRequest("the body is empty")
        return (bytes(binary),)

    def _native(
        self, message: dict[str, Any], query: dict[str, Any]
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        given = _only(message, (*JSON_KEYS, "options"))
        if "options" in given:
            check_options(given["options"])
        if "inputs" not in given:
            raise InvalidRequest("the field 'inputs' is missing or null")
        inputs = given["inputs"]
        several = isinstance(inputs, list)
        payloads = tuple(inputs) if several else (inputs,)
        if not payloads:
            raise InvalidRequest("the field 'inputs' is an empty list")
        for payload in payloads:
            if not isinstance(payload, str):
                raise InvalidRequest(
                    f"the field 'inputs' must be a string or a list of strings, not {_kind(payload)}"
                )
        self.reply = NativeReply(several=several)
        return payloads, joined(query, _parameters_of(given))

    def _instances(
        self, message: dict[str, Any], query: dict[str, Any]
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        self.reply = PredictionsReply()
        given = _only(message, FIELDS)
        return read_instances(message, self.payload_fields), joined(query, _parameters_of(given))

    def _form(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        if self.is_open_inference_route:
            raise InvalidRequest(
                "the Open Inference Protocol takes no form; send JSON, with Content-Type: application/json"
            )
        given = [name for name in self.payload_fields if name in self.fields]
        names = "', '".join(self.payload_fields)
        if not given:
            hint = "" if self.is_grpc else "; for a raw body or JSON set the Content-Type header"
            raise InvalidRequest(f"no input: expected a field named one of '{names}'{hint}")
        if len(given) > 1:
            raise InvalidRequest(f"several inputs: '{given[0]}' and '{given[1]}'; send one of '{names}'")
        others = {name: _scalar(value) for name, value in self.fields.items() if name != given[0]}
        value = self.fields[given[0]]
        payload = value if isinstance(value, str) else bytes(value)
        if not payload:
            raise InvalidRequest(f"the field '{given[0]}' is empty")
        return (payload,), _parameters_field(others)

    def _is_json(self) -> bool:
        own = self.headers.get(
            "body"
        )  # a form field's own headers; gRPC's Open Inference service sets them as well
        mime = own.get("content-type", "") if isinstance(own, Mapping) else self.header("content-type")
        mime = (mime or "").partition(";")[0].strip().lower()
        return mime == "application/json" or mime.endswith("+json")


def _split(body: Any, length: str) -> tuple[Any, memoryview]:
    """The JSON of `length` bytes and the binary data behind it. Raises InvalidRequest."""
    if not isinstance(body, bytes | bytearray):
        raise InvalidRequest(f"the header {HEADER_LENGTH} is for bodies of bytes")
    if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):
        raise InvalidRequest(
            f"the header {HEADER_LENGTH} must be an integer from 0 to the body's {len(body)} bytes, "
            f"not {length[:20]!r}"
        )
    view = memoryview(body)
    return view[: int(length)], view[int(length) :]


def comes_by_grpc(headers: Mapping[str, Any]) -> bool:
    """TorchServe's gRPC hands on no headers, HTTP always some. (Dictionaries here belong to form fields.)"""
    return not any(isinstance(value, str) for value in headers.values())


def parse_json(body: Any) -> Any:
    """Strict JSON: no NaN, no infinity, no name twice. Raises InvalidRequest.

    A server that is set to decode bodies itself hands on what it found in one.
    """
    if isinstance(body, dict | list):
        return body
    try:
        text = body if isinstance(body, str) else bytes(body).decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the JSON body is not UTF-8: byte {error.start} cannot be read") from None
    except RecursionError:
        raise InvalidRequest("the JSON body is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name '{name[:60]}' appears twice in one object")
        result[name] = value
    return result


def _is_open_inference(message: dict[str, Any]) -> bool:
    """Its `inputs` is a list of objects; where the list is empty, its other fields tell."""
    inputs = message.get("inputs")
    if isinstance(inputs, list) and any(isinstance(item, dict) for item in inputs):
        return True
    return bool(_OPEN_INFERENCE_KEYS & message.keys())


def _only(message: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are not null. Raises InvalidRequest for one that is none of `fields`."""
    given = {name: value for name, value in message.items() if value is not None}
    for name in given:
        if name not in fields:
            names = "' and '".join(fields[:2])
            raise InvalidRequest(f"unknown field '{name[:60]}'; the body has '{names}'")
    return given


def _parameters_of(message: dict[str, Any]) -> dict[str, Any]:
    parameters = message.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"the field 'parameters' must be an object, not {_kind(parameters)}")
    return parameters


def _parameters_field(values: dict[str, Any]) -> dict[str, Any]:
    """A field `parameters` holds a JSON object; the others are parameters themselves."""
    parameters = values.pop("parameters", None)
    if parameters is None:
        return values
    if not isinstance(parameters, dict):
        raise InvalidRequest("the field 'parameters' must be a JSON object")
    return joined(values, parameters)


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`generate_parameters`, nested as huggingface_hub's client sends them, become parameters like the others."""
    flat = dict(parameters)
    nested = flat.pop("generate_parameters", None)
    if nested is None:
        return flat
    if not isinstance(nested, dict):
        raise InvalidRequest("'generate_parameters' must be an object")
    for name in nested:
        if name in flat:
            raise InvalidRequest(f"'{name[:60]}' is given twice: in 'generate_parameters' and beside it")
    return flat | nested


def _scalar(value: Any) -> Any:
    """A form field's text as JSON reads it (`3`, `0.5`, `true`, `{...}`), else, and for `null`, as it is."""
    if not isinstance(value, str):
        try:
            value = bytes(value).decode()
        except UnicodeDecodeError:
            raise InvalidRequest("a form field other than the input is not UTF-8 text") from None
    if value.lstrip()[:1] in ("[", "{"):
        check_bounds(value, takes_numbers=False)
    try:
        found = json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return value
    return value if found is None else found


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")
