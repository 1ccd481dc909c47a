"""REST and gRPC requests with functions that parse their answers, without I/O, for both clients."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

from torchserve_models.client.errors import InvalidRequest, UnexpectedAnswer
from torchserve_models.client.names import check_addressable

T = TypeVar("T")
U = TypeVar("U")
Service = Literal["inference", "management", "metrics", "health"]

Resend = Literal["always", "unsent", "never"]
"""Condition for resending a call: always (it changes nothing), only if the server received nothing, or never."""


@dataclass(frozen=True)
class RestCall(Generic[T]):
    """A REST request.

    Attributes:
        service: Address of the server to which the request goes.
        method: HTTP method.
        path: Path and query.
        read: Parses the body of a 2xx answer.
        headers: Headers of the request.
        body: Body of the request.
        resend: "always", "unsent" (only if the server received nothing) or "never".
        carries_deadline: Whether headers carry the remaining time.
        limit: Timeout of one attempt in seconds, if it is shorter than the operation's remaining time.
    """

    service: Service
    method: str
    path: str
    read: Callable[[bytes], T]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    resend: Resend = "always"
    carries_deadline: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class RpcCall(Generic[T]):
    """A gRPC request.

    Attributes:
        service: Address of the server to which the request goes.
        path: `/package.Service/Method`.
        request: The message to send.
        answer: Message class of the reply.
        read: Parses the reply.
        resend: "always", "unsent" (only if the server received nothing) or "never".
        headers: Metadata of the request.
        carries_deadline: Whether the request's map `input` carries the remaining time.
        limit: Timeout of one attempt in seconds, if it is shorter than the operation's remaining time.
    """

    service: Service
    path: str
    request: Any
    answer: Any
    read: Callable[[Any], T]
    resend: Resend = "always"
    headers: Mapping[str, str] = field(default_factory=dict)
    carries_deadline: bool = False
    limit: float | None = None


Call = RestCall[T] | RpcCall[T]


@dataclass(frozen=True)
class Pause:
    """A pause between two calls, in seconds."""

    seconds: float


CallSequence = Generator[Call[Any] | Pause, Any, T]
"""Several calls in a row: a generator that yields each call and receives the call's answer or error."""

Operation = Call[T] | CallSequence[T]


def map_result(call: Call[T], convert: Callable[[T], U]) -> Call[U]:
    """Return a call whose answer is converted by `convert`."""
    read: Callable[[Any], T] = call.read
    return replace(call, read=lambda answer: convert(read(answer)))  # type: ignore[arg-type, return-value]


def read_json(body: bytes | str) -> Any:
    """Parse a JSON text. Raises UnexpectedAnswer if it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        start = body[:60]
        raise UnexpectedAnswer(f"the answer is not JSON: {start!r}") from None


def encode_json(value: Any) -> bytes:
    """Return strict JSON in UTF-8. Raises InvalidRequest for values that JSON cannot represent, such as NaN."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be encoded: {error}") from None


def build_path(*segments: str, query: Mapping[str, Any] | None = None) -> str:
    """Return a percent-encoded path and query such as `/a/b?x=1`, without query values of None.

    Raises:
        InvalidRequest: A segment cannot be part of a URL.
    """
    path = "/" + "/".join(quote(check_addressable(segment), safe="") for segment in segments)
    fields = {name: _query_value(value) for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(fields)}" if fields else path


def _query_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def import_stubs(name: str) -> ModuleType:
    """Import and return the generated module of `name`.proto."""
    return import_module(f"torchserve_models.client._stubs.{name}_pb2")


def build_rpc_call(
    module: ModuleType,
    service: str,
    method: str,
    fields: Mapping[str, Any],
    read: Callable[[Any], T],
    *,
    resend: Resend = "always",
    carries_deadline: bool = False,
) -> RpcCall[T]:
    """Return the gRPC call of a method in a proto file.

    Args:
        module: Generated module of the proto file.
        service: Name of the service.
        method: Name of the method.
        fields: Fields of the message; None for fields that are not set.
        read: Parses the reply.
        resend: "always", "unsent" (only if the server received nothing) or "never".
        carries_deadline: Whether the request carries the remaining time.

    Raises:
        InvalidRequest: A field has a value of the wrong type or range.
    """
    from google.protobuf import message_factory

    descriptor = module.DESCRIPTOR.services_by_name[service]
    api: Service = "management" if service == "ManagementAPIsService" else "inference"
    rpc_method = descriptor.methods_by_name[method]
    request = message_factory.GetMessageClass(rpc_method.input_type)
    answer = message_factory.GetMessageClass(rpc_method.output_type)
    try:
        message = request(**{name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be encoded: {error}") from None
    path = f"/{descriptor.full_name}/{method}"
    return RpcCall(api, path, message, answer, read, resend, carries_deadline=carries_deadline)
