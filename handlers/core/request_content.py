"""Access the fields and headers of a request in TorchServe's layout."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from handlers.core.content_type import ContentType, decode_text, needs_decoding
from handlers.core.forms import FORM_CONTENT_TYPE_HEADER

CHARSET_FIELD = "_charset_"


@dataclass(frozen=True)
class ParserSettings:
    """Model settings for request parsing.

    Attributes:
        model_name: The name under which clients address the model.
        model_version: The model's version.
        payload_fields: Allowed names of the form field or tensor that contains the input.
        max_items: The maximum number of inputs in one request.
        takes_numbers: True if inputs may be numeric tensors.
        takes_text: True if inputs are texts, which are decoded from the charset of their content type. UTF-8 texts
            stay bytes.
        parameter_names: Names of parameters that a request may send as tensors.
    """

    model_name: str
    model_version: str
    payload_fields: tuple[str, ...]
    max_items: int
    takes_numbers: bool = True
    takes_text: bool = False
    parameter_names: Collection[str] = ()


@dataclass
class RequestContent:
    """Fields and headers of a request, with their content types and charsets.

    Attributes:
        fields: TorchServe's `data[i]`: `body`, or the fields of a form.
        headers: HTTP headers by name, and for each form field a mapping of its headers.
        settings: The parser's settings.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    settings: ParserSettings

    @property
    def is_grpc(self) -> bool:
        """True if the request came over gRPC."""
        return is_grpc_request(self.headers)

    @property
    def is_model_infer(self) -> bool:
        """True for a ModelInfer call, which TorchServe converts to JSON. `Predictions` calls have no content type."""
        return self.is_grpc and "body" in self.fields and self.content_type("body").is_json

    @property
    def is_open_inference_route(self) -> bool:
        """True if the URL is /v2/models/NAME/infer.

        On this route only, TorchServe sets `explain` and omits `url_path`.
        """
        return "explain" in self.headers and "url_path" not in self.headers

    @property
    def is_urlencoded(self) -> bool:
        """True if the Content-Type is application/x-www-form-urlencoded."""
        return "application/x-www-form-urlencoded" in ContentType.parse(self.header("content-type")).mime

    def header(self, name: str) -> str:
        """Return the header with this lower-case name, "" if it is missing. Names in `headers` may have any case."""
        for key, value in self.headers.items():
            if key.lower() == name and isinstance(value, str):
                return value
        return ""

    def content(self, name: str, value: Any) -> Any:
        """Return a field's content: a string if its text is not UTF-8, otherwise bytes. Raises BadRequest."""
        if isinstance(value, dict | list):  # parsed by the server
            return value
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        content_type = self.content_type(name)
        charset = content_type.charset or self._form_charset(name)
        is_payload = name in (*self.settings.payload_fields, "body")
        is_text = self.settings.takes_text or content_type.is_json or not is_payload
        return decode_text(value, charset) if is_text and needs_decoding(value, charset) else value

    def content_type(self, name: str) -> ContentType:
        """Return the content type of a field.

        TorchServe repeats the media type of the request's header, without its charset, as the type of `body`. The
        result for `body` combines both.
        """
        field_headers = self.headers.get(name)
        field_type = (
            ContentType.parse(str(field_headers.get("content-type") or ""))
            if isinstance(field_headers, Mapping)
            else ContentType()
        )
        if name != "body" or self.is_grpc or self.header(FORM_CONTENT_TYPE_HEADER):
            return field_type
        request_type = ContentType.parse(self.header("content-type"))
        return ContentType(field_type.mime + request_type.mime, request_type.charset)

    def _form_charset(self, name: str) -> str:
        """Return a form's default charset, from its field `_charset_` (RFC 7578) or its Content-Type."""
        if name == CHARSET_FIELD:
            return ""
        if CHARSET_FIELD in self.fields:
            return bytes(self.fields[CHARSET_FIELD]).decode("ascii", "replace")
        return ContentType.parse(self.header(FORM_CONTENT_TYPE_HEADER) or self.header("content-type")).charset


def is_grpc_request(headers: Mapping[str, Any]) -> bool:
    """Return True if a request came over gRPC, for which TorchServe passes no headers.

    Values of `headers` that are mappings are the headers of form fields.
    """
    return not any(isinstance(value, str) for value in headers.values())
