"""Request parsing: every form that a request can have becomes one `Request`.

Forms: a raw body; JSON `{"inputs": ..., "parameters": {...}}`; multipart or urlencoded fields; TorchServe's gRPC
map of bytes; the Open Inference Protocol, from REST (JSON, and binary data behind it) and from TorchServe's gRPC;
KServe's first protocol, `{"instances": [...]}`. JSON is JSON in each of them, whatever its content type says.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from handlers.core.body_limits import check_bounds
from handlers.core.compression import decompress
from handlers.core.content_type import ContentType, decode_text, needs_decoding
from handlers.core.errors import InvalidRequest, TooManyItems
from handlers.core.forms import HEADER as FORM_HEADER
from handlers.core.forms import check_whole, open_form
from handlers.core.json_message import kind_of, only_fields, parameters_of, parse_json
from handlers.core.json_source import is_json_source
from handlers.core.kserve_v1 import FIELDS, PredictionsReply, read_instances
from handlers.core.misdeclared import check_is_input
from handlers.core.open_inference import HEADER_LENGTH, OpenInferenceReply, read_id, read_message
from handlers.core.passed_over import SIGNATURE_NAME, check_options, without
from handlers.core.raw_parameters import flat, joined, parameters_field, scalar
from handlers.core.repeated_fields import check_not_repeated
from handlers.core.reply import NativeReply, Reply
from handlers.core.tensor import Payload

JSON_KEYS = ("inputs", "parameters")
CHARSET_FIELD = "_charset_"
_TENSOR_KEYS = {"name", "datatype", "shape"}
_OPEN_INFERENCE_KEYS = {"id", "model_name", "model_version", "outputs"}


@dataclass(frozen=True)
class Request:
    """`payloads`: one an input. `parameters`: as sent, not checked yet. `reply` writes the answer."""

    payloads: Sequence[Payload]
    parameters: Mapping[str, Any]
    reply: Reply


@dataclass
class RequestParser:
    """Parse one request. `reply` follows the protocol from the start, so that errors are written in it, too.

    `fields` is TorchServe's `data[i]`, `headers` its request headers; `payload_fields` are the names under which
    a form or a tensor carries the input. `takes_text`: inputs are texts, which are decoded by the charset that their
    content type declares; UTF-8 stays bytes. `parameter_names`: what a tensor of another name
    may be beside the input.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    model_name: str
    model_version: str
    payload_fields: tuple[str, ...]
    max_items: int
    takes_numbers: bool = True
    takes_text: bool = False
    parameter_names: Collection[str] = ()
    reply: Reply = field(default_factory=NativeReply)

    def __post_init__(self) -> None:
        if self.is_model_infer:
            self.reply = OpenInferenceReply("", self.model_name, self.model_version, grpc=True)

    @property
    def is_grpc(self) -> bool:
        return comes_by_grpc(self.headers)

    @property
    def is_model_infer(self) -> bool:
        """TorchServe's gRPC makes JSON of a ModelInfer request, and says so; entries of Predictions have no type."""
        return self.is_grpc and "body" in self.fields and self._content_type("body").is_json

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
        check_not_repeated(self.headers)
        if sent := self.header(FORM_HEADER):
            self.fields, self.headers = open_form(sent, self.fields, self.headers, self.payload_fields)
        elif "url_path" in self.headers and self._is_urlencoded():  # other routes add the query's fields
            check_whole(self.fields, self.header("content-length"))
        payloads, parameters = self._body() if "body" in self.fields else self._form()
        if len(payloads) > self.max_items:
            raise TooManyItems(f"{len(payloads)} inputs in one request; at most {self.max_items} are allowed")
        return Request(payloads, flat(parameters), self.reply)

    def _body(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        body = self.fields["body"]
        # Query parameters, on the routes where TorchServe hands them on, arrive as further fields.
        # `model_name`, which /invocations takes to find the model, is none of its parameters.
        others = {name: value for name, value in self.fields.items() if name not in ("body", "model_name")}
        if name := next((name for name in self.payload_fields if name in others), None):
            raise InvalidRequest(
                f"the input is the body, and '{name}' is another beside it; send one of them"
            )
        query = parameters_field({name: scalar(name, value) for name, value in others.items()})
        length = self.header(HEADER_LENGTH.lower())
        binary = None
        if length:
            body, binary = _split(body, length)
            if not body:
                return self._raw_binary(binary), query
        else:
            body = self._content("body", body)
            if body in (b"", ""):
                raise InvalidRequest(
                    "the body is empty; send the input as the body, or JSON with the field 'inputs'"
                )
            if not (self.is_open_inference_route or self._content_type("body").is_json or _is_json(body)):
                check_is_input(body, self.payload_fields)
                return (_payload(body),), query
        message = self._json(body, "the body", self._content_type("body"))
        if not isinstance(message, dict):
            twice = isinstance(message, str) and is_json_source(message)
            hint = ": it is JSON that was encoded twice" if twice else ""
            raise InvalidRequest(
                f"the JSON body must be an object with the field 'inputs', not {kind_of(message)}{hint}"
            )
        return self._message(message, query, binary)

    def _json(self, content: Any, label: str, content_type: ContentType) -> Any:
        """Raises InvalidRequest."""
        check_bounds(content, self.takes_numbers)
        try:
            return parse_json(content, label)
        except InvalidRequest as error:
            if _is_json(content):
                hint = "what looks like JSON is read as JSON; a text that looks so goes into the JSON field 'inputs'"
            elif self.is_open_inference_route:
                hint = (
                    "the Open Inference Protocol is JSON; where binary data follow it, the header "
                    f"{HEADER_LENGTH} says where the JSON ends"
                )
            elif content_type.is_json:
                check_is_input(content, self.payload_fields)
                raw = "text/plain" if self.takes_text else "application/octet-stream"
                hint = f"its Content-Type says JSON; to send an input as it is, set Content-Type: {raw}"
            else:
                raise
            raise InvalidRequest(f"{error.message}; {hint}") from None

    def _message(
        self, message: dict[str, Any], others: dict[str, Any], binary: memoryview | None = None
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        """A JSON object, and the parameters that came beside it."""
        if "instances" in message and (message["instances"] is not None or message.get("inputs") is None):
            return self._instances(message, others)
        is_open_inference = self.is_model_infer or self.is_open_inference_route or binary is not None
        if is_open_inference or _is_open_inference(message):
            payloads, parameters = self._open_inference(message, binary)
            return payloads, joined(others, parameters)
        return self._native(message, others)

    def _open_inference(
        self, message: dict[str, Any], binary: memoryview | None
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        grpc = self.is_model_infer
        reply = OpenInferenceReply("", self.model_name, self.model_version, grpc)
        self.reply = reply
        self.reply = reply = replace(reply, id=read_id(message))
        read = read_message(message, self.payload_fields, grpc, binary, self.parameter_names)
        self.reply = replace(reply, requested_outputs=read.requested_outputs, binary=read.binary)
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
        given = only_fields(message, (*JSON_KEYS, "options"), self.parameter_names)
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
                what = "a text" if self.takes_text else "a file in base64"
                within = "a list with " if several else ""
                raise InvalidRequest(
                    f"the field 'inputs' must be a string ({what}) or a list of strings, not "
                    f"{within}{kind_of(payload)}"
                )
        self.reply = NativeReply(several=several)
        return payloads, joined(query, parameters_of(given))

    def _instances(
        self, message: dict[str, Any], query: dict[str, Any]
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        self.reply = PredictionsReply()
        given = only_fields(without(message, (SIGNATURE_NAME,)), FIELDS, self.parameter_names)
        return read_instances(given.get("instances"), self.payload_fields), joined(
            query, parameters_of(given)
        )

    def _form(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        if self.is_open_inference_route:
            raise InvalidRequest(
                "the Open Inference Protocol takes no form; send JSON, with Content-Type: application/json"
            )
        given = [name for name in self.payload_fields if name in self.fields]
        names = "', '".join(self.payload_fields)
        if not given:
            raise InvalidRequest(f"no input: expected a field named one of '{names}'{self._hint_of_fields()}")
        if len(given) > 1:
            raise InvalidRequest(f"several inputs: '{given[0]}' and '{given[1]}'; send one of '{names}'")
        others = {
            name: scalar(name, self._content(name, value))
            for name, value in self.fields.items()
            if name not in (given[0], CHARSET_FIELD)
        }
        parameters = parameters_field(others)
        content = self._content(given[0], self.fields[given[0]])
        if not content:
            raise InvalidRequest(f"the field '{given[0]}' is empty")
        if not (self._content_type(given[0]).is_json or _is_json(content)):
            return (_payload(content),), parameters
        value = self._json(content, f"the field '{given[0]}'", self._content_type(given[0]))
        return self._message(value if isinstance(value, dict) else {"inputs": value}, parameters)

    def _hint_of_fields(self) -> str:
        if self.fields:
            return f", not '{next(iter(self.fields))[:60]}'"
        return "" if self.is_grpc else "; for a raw body or JSON set the Content-Type header"

    def _content(self, name: str, value: Any) -> Any:
        """A field as a string where it is text in another charset than UTF-8, else its bytes. Raises BadRequest."""
        if isinstance(value, dict | list):  # a server that decodes bodies itself
            return value
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        content_type = self._content_type(name)
        charset = content_type.charset or self._form_charset(name)
        is_text = self.takes_text or content_type.is_json or name not in (*self.payload_fields, "body")
        return decode_text(value, charset) if is_text and needs_decoding(value, charset) else value

    def _content_type(self, name: str) -> ContentType:
        """What the client says of a field. Of the body TorchServe repeats it without the charset, maybe another."""
        own = self.headers.get(name)
        of_field = (
            ContentType.parse(str(own.get("content-type") or ""))
            if isinstance(own, Mapping)
            else ContentType()
        )
        if name != "body" or self.is_grpc or self.header(FORM_HEADER):
            return of_field
        of_request = ContentType.parse(self.header("content-type"))
        return ContentType(of_field.mime + of_request.mime, of_request.charset)

    def _form_charset(self, name: str) -> str:
        """The default of a form's fields: its field `_charset_` (RFC 7578), or what its own Content-Type says."""
        if name == CHARSET_FIELD:
            return ""
        if CHARSET_FIELD in self.fields:
            return bytes(self.fields[CHARSET_FIELD]).decode("ascii", "replace")
        return ContentType.parse(self.header(FORM_HEADER) or self.header("content-type")).charset

    def _is_urlencoded(self) -> bool:
        return "application/x-www-form-urlencoded" in ContentType.parse(self.header("content-type")).mime


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


def _payload(content: Any) -> Payload:
    return content if isinstance(content, str) else bytes(content)


def _is_json(content: Any) -> bool:
    return isinstance(content, dict | list) or is_json_source(content)


def comes_by_grpc(headers: Mapping[str, Any]) -> bool:
    """TorchServe's gRPC hands on no headers, HTTP always some. (Dictionaries here belong to form fields.)"""
    return not any(isinstance(value, str) for value in headers.values())


def _is_open_inference(message: dict[str, Any]) -> bool:
    """Its `inputs` is a list of tensors; where there is none, its other fields tell."""
    inputs = message.get("inputs")
    if isinstance(inputs, list) and any(isinstance(item, dict) for item in inputs):
        return any(isinstance(item, dict) and _TENSOR_KEYS & item.keys() for item in inputs)
    return not isinstance(inputs, str) and bool(_OPEN_INFERENCE_KEYS & message.keys())
