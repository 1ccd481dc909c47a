"""Parse a request of any format into a `ParsedRequest`.

The formats are a raw body; JSON `{"inputs": ..., "parameters": {...}}`; multipart or urlencoded fields; TorchServe's
gRPC map of bytes; the Open Inference Protocol over REST (JSON, optionally followed by binary data) and over
TorchServe's gRPC; and KServe's V1 protocol, `{"instances": [...]}`. JSON is recognized in any content type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from handlers.core.body_limits import check_bounds
from handlers.core.compression import decompress
from handlers.core.content_type import ContentType
from handlers.core.errors import InvalidRequest, TooManyItems
from handlers.core.forms import FORM_CONTENT_TYPE_HEADER, check_complete_form, parse_form
from handlers.core.ignored_parameters import SIGNATURE_NAME, check_options, drop_ignored
from handlers.core.json_detection import looks_like_json
from handlers.core.json_message import get_parameters, json_type_name, parse_json, select_fields
from handlers.core.kserve_v1 import FIELDS, KServeV1Encoder, read_instances
from handlers.core.open_inference import parse_id, parse_infer_request
from handlers.core.open_inference_response import HEADER_LENGTH, OpenInferenceEncoder
from handlers.core.raw_body_checks import check_raw_body
from handlers.core.raw_parameters import (
    expand_parameters_field,
    flatten_parameters,
    merge_parameters,
    parse_scalar,
)
from handlers.core.repeated_fields import check_not_repeated
from handlers.core.request_content import CHARSET_FIELD, RequestContent
from handlers.core.response_encoder import NativeEncoder, ResponseEncoder
from handlers.core.tensor import Payload

JSON_KEYS = ("inputs", "parameters")
_TENSOR_KEYS = {"name", "datatype", "shape"}
_OPEN_INFERENCE_KEYS = {"id", "model_name", "model_version", "outputs"}


@dataclass(frozen=True)
class ParsedRequest:
    """A request, independent of its protocol.

    Attributes:
        payloads: The inputs.
        parameters: The parameters before they are checked.
        encoder: The response encoder of the request's protocol.
    """

    payloads: Sequence[Payload]
    parameters: Mapping[str, Any]
    encoder: ResponseEncoder


@dataclass
class RequestParser(RequestContent):
    """A parser of one request.

    Attributes:
        encoder: The response encoder of the protocol that has been detected so far. It also encodes errors.
    """

    encoder: ResponseEncoder = field(default_factory=NativeEncoder)

    def __post_init__(self) -> None:
        if self.is_model_infer:
            self.encoder = self._open_inference_encoder()

    def parse(self) -> ParsedRequest:
        """Parse the request. Raises BadRequest or TooLarge."""
        if (encoding := self.header("content-encoding").strip().lower()) not in ("", "identity"):
            self.fields = {**self.fields, "body": decompress(self.fields.get("body"), encoding)}
        check_not_repeated(self.headers)
        if form_content_type := self.header(FORM_CONTENT_TYPE_HEADER):
            self.fields, self.headers = parse_form(
                form_content_type, self.fields, self.headers, self.settings.payload_fields
            )
        elif "url_path" in self.headers and self.is_urlencoded:  # other routes add the query's fields
            check_complete_form(self.fields, self.header("content-length"))
        payloads, parameters = self._parse_body() if "body" in self.fields else self._parse_form()
        max_items = self.settings.max_items
        if len(payloads) > max_items:
            raise TooManyItems(f"{len(payloads)} inputs in one request; at most {max_items} are allowed")
        return ParsedRequest(payloads, flatten_parameters(parameters), self.encoder)

    def _parse_body(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        body = self.fields["body"]
        # On some routes, TorchServe passes query parameters as additional fields.
        # `model_name` selects the model of /invocations and is not a parameter of the model.
        others = {name: value for name, value in self.fields.items() if name not in ("body", "model_name")}
        if name := next((name for name in self.settings.payload_fields if name in others), None):
            raise InvalidRequest(f"the input is sent twice: as the body and as '{name}'; send one of them")
        query = expand_parameters_field({name: parse_scalar(name, value) for name, value in others.items()})
        length = self.header(HEADER_LENGTH.lower())
        binary = None
        if length:
            body, binary = _split_binary(body, length)
            if not body:
                return self._parse_raw_binary(binary), query
        else:
            body = self.content("body", body)
            if body in (b"", ""):
                raise InvalidRequest(
                    "the body is empty; send the input as the body, or JSON with the field 'inputs'"
                )
            is_json = self.is_open_inference_route or self.content_type("body").is_json or _is_json(body)
            if not is_json:
                check_raw_body(body, self.settings.payload_fields)
                return (_to_payload(body),), query
        message = self._parse_json(body, "the body", self.content_type("body"))
        if not isinstance(message, dict):
            is_encoded_twice = isinstance(message, str) and looks_like_json(message)
            hint = ": the JSON was encoded twice" if is_encoded_twice else ""
            raise InvalidRequest(
                f"the JSON body must be an object with the field 'inputs', not {json_type_name(message)}{hint}"
            )
        return self._parse_message(message, query, binary)

    def _parse_json(self, content: Any, label: str, content_type: ContentType) -> Any:
        """Parse the JSON of a body or field, named `label` in errors. Raises InvalidRequest with a hint."""
        check_bounds(content, self.settings.takes_numbers)
        try:
            return parse_json(content, label)
        except InvalidRequest as error:
            if _is_json(content):
                hint = "a body that looks like JSON is parsed as JSON; send such a text in the JSON field 'inputs'"
            elif self.is_open_inference_route:
                hint = (
                    "the Open Inference Protocol is JSON; if binary data follow it, set the header "
                    f"{HEADER_LENGTH} to the length of the JSON"
                )
            elif content_type.is_json:
                check_raw_body(content, self.settings.payload_fields)
                raw = "text/plain" if self.settings.takes_text else "application/octet-stream"
                hint = f"its Content-Type is JSON; for a raw input set Content-Type: {raw}"
            else:
                raise
            raise InvalidRequest(f"{error.message}; {hint}") from None

    def _parse_message(
        self, message: dict[str, Any], others: dict[str, Any], binary: memoryview | None = None
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        """Parse a JSON object. `others` are parameters from the query or from other fields."""
        if "instances" in message and (message["instances"] is not None or message.get("inputs") is None):
            return self._parse_instances(message, others)
        is_open_inference = self.is_model_infer or self.is_open_inference_route or binary is not None
        if is_open_inference or _is_open_inference(message):
            payloads, parameters = self._parse_open_inference(message, binary)
            return payloads, merge_parameters(others, parameters)
        return self._parse_native(message, others)

    def _parse_open_inference(
        self, message: dict[str, Any], binary: memoryview | None
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        encoder = self._open_inference_encoder()
        self.encoder = encoder
        self.encoder = encoder = replace(encoder, id=parse_id(message))
        settings = self.settings
        request = parse_infer_request(
            message, settings.payload_fields, self.is_model_infer, binary, settings.parameter_names
        )
        self.encoder = replace(encoder, requested_outputs=request.requested_outputs, binary=request.binary)
        return request.payloads, request.parameters

    def _open_inference_encoder(self) -> OpenInferenceEncoder:
        return OpenInferenceEncoder(
            "", self.settings.model_name, self.settings.model_version, self.is_model_infer
        )

    def _parse_raw_binary(self, binary: memoryview) -> Sequence[Payload]:
        """Parse a raw binary request, whose header length is 0 and whose body is the single element of one input."""
        self.encoder = self._open_inference_encoder()
        if not binary:
            raise InvalidRequest("the body is empty")
        return (bytes(binary),)

    def _parse_native(
        self, message: dict[str, Any], query: dict[str, Any]
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        fields = select_fields(message, (*JSON_KEYS, "options"), self.settings.parameter_names)
        if "options" in fields:
            check_options(fields["options"])
        if "inputs" not in fields:
            raise InvalidRequest("the field 'inputs' is missing or null")
        inputs = fields["inputs"]
        is_list = isinstance(inputs, list)
        payloads = tuple(inputs) if is_list else (inputs,)
        if not payloads:
            raise InvalidRequest("the field 'inputs' is an empty list")
        for payload in payloads:
            if not isinstance(payload, str):
                string = "a text" if self.settings.takes_text else "a file in base64"
                within = "a list with " if is_list else ""
                raise InvalidRequest(
                    f"the field 'inputs' must be a string ({string}) or a list of strings, not "
                    f"{within}{json_type_name(payload)}"
                )
        self.encoder = NativeEncoder(is_list=is_list)
        return payloads, merge_parameters(query, get_parameters(fields))

    def _parse_instances(
        self, message: dict[str, Any], query: dict[str, Any]
    ) -> tuple[Sequence[Payload], dict[str, Any]]:
        self.encoder = KServeV1Encoder()
        fields = select_fields(
            drop_ignored(message, (SIGNATURE_NAME,)), FIELDS, self.settings.parameter_names
        )
        payloads = read_instances(fields.get("instances"), self.settings.payload_fields)
        return payloads, merge_parameters(query, get_parameters(fields))

    def _parse_form(self) -> tuple[Sequence[Payload], dict[str, Any]]:
        if self.is_open_inference_route:
            raise InvalidRequest(
                "the Open Inference Protocol does not support forms; send JSON, with Content-Type: application/json"
            )
        payload_fields = self.settings.payload_fields
        names = [name for name in payload_fields if name in self.fields]
        allowed = "', '".join(payload_fields)
        if not names:
            raise InvalidRequest(
                f"no input: expected a field named one of '{allowed}'{self._missing_field_hint()}"
            )
        if len(names) > 1:
            raise InvalidRequest(f"several inputs: '{names[0]}' and '{names[1]}'; send one of '{allowed}'")
        name = names[0]
        parameters = expand_parameters_field(
            {
                other: parse_scalar(other, self.content(other, value))
                for other, value in self.fields.items()
                if other not in (name, CHARSET_FIELD)
            }
        )
        content = self.content(name, self.fields[name])
        if not content:
            raise InvalidRequest(f"the field '{name}' is empty")
        if not (self.content_type(name).is_json or _is_json(content)):
            return (_to_payload(content),), parameters
        value = self._parse_json(content, f"the field '{name}'", self.content_type(name))
        return self._parse_message(value if isinstance(value, dict) else {"inputs": value}, parameters)

    def _missing_field_hint(self) -> str:
        if self.fields:
            return f", not '{next(iter(self.fields))[:60]}'"
        return "" if self.is_grpc else "; for a raw body or JSON set the Content-Type header"


def _split_binary(body: Any, length: str) -> tuple[Any, memoryview]:
    """Split a body into JSON, its first `length` bytes, and binary data. Raises InvalidRequest."""
    if not isinstance(body, bytes | bytearray):
        raise InvalidRequest(f"the header {HEADER_LENGTH} requires a binary body")
    if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):
        raise InvalidRequest(
            f"the header {HEADER_LENGTH} must be an integer from 0 to the body's {len(body)} bytes, "
            f"not {length[:20]!r}"
        )
    view = memoryview(body)
    return view[: int(length)], view[int(length) :]


def _to_payload(content: Any) -> Payload:
    return content if isinstance(content, str) else bytes(content)


def _is_json(content: Any) -> bool:
    return isinstance(content, dict | list) or looks_like_json(content)


def _is_open_inference(message: dict[str, Any]) -> bool:
    """Return True if `inputs` is a list of tensors, or if it is missing and other fields are of this protocol."""
    inputs = message.get("inputs")
    if isinstance(inputs, list) and any(isinstance(item, dict) for item in inputs):
        return any(isinstance(item, dict) and _TENSOR_KEYS & item.keys() for item in inputs)
    return not isinstance(inputs, str) and bool(_OPEN_INFERENCE_KEYS & message.keys())
