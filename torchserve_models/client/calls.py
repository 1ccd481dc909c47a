"""One request and the reading of its answer, without the I/O: what sync and async have in common."""

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

# When the same call may be sent again: always (it changes nothing), only if the server surely got nothing, or never.
Resend = Literal["always", "unsent", "never"]


@dataclass(frozen=True)
class RestCall(Generic[T]):
    """`read` gets the body of a 2xx answer.

    `carries_deadline`: the time left is sent along as headers. `limit`: seconds for one attempt, where that is less
    than what the operation has left.
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
    """`path` is `/package.Service/Method`; `request` a message, `answer` the class of the reply that `read` gets.

    `headers` travel as metadata. `carries_deadline`: the time left is sent along in the request's map `input`.
    `limit`: as in RestCall.
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
    """Time to let pass between two calls, in seconds."""

    seconds: float


# Several calls in a row: it yields each call and is sent that call's answer, or thrown its error.
Plan = Generator[Call[Any] | Pause, Any, T]

Operation = Call[T] | Plan[T]


def mapped(call: Call[T], convert: Callable[[T], U]) -> Call[U]:
    """The same call, its answer converted."""
    read: Callable[[Any], T] = call.read
    return replace(call, read=lambda answer: convert(read(answer)))  # type: ignore[arg-type, return-value]


def read_json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        start = body[:60]
        raise UnexpectedAnswer(f"the answer is not JSON: {start!r}") from None


def write_json(value: Any) -> bytes:
    """Strict JSON in UTF-8. Raises InvalidRequest for what JSON cannot say, such as NaN or a lone surrogate."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"this cannot be sent: {error}") from None


def path_of(*segments: str, query: Mapping[str, Any] | None = None) -> str:
    """`/a/b?x=1`, quoted; query values of None are left out. Raises InvalidRequest for what cannot be a segment."""
    path = "/" + "/".join(quote(check_addressable(segment), safe="") for segment in segments)
    given = {name: _query_value(value) for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _query_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def stubs(name: str) -> ModuleType:
    """Return the generated module of `name`.proto, imported at its first use."""
    return import_module(f"torchserve_models.client._stubs.{name}_pb2")


def rpc(
    module: ModuleType,
    service: str,
    method: str,
    fields: Mapping[str, Any],
    read: Callable[[Any], T],
    *,
    resend: Resend = "always",
    carries_deadline: bool = False,
) -> RpcCall[T]:
    """A call by its names in the proto: path and messages come from the descriptor. None leaves a field out."""
    from google.protobuf import message_factory

    descriptor = module.DESCRIPTOR.services_by_name[service]
    which: Service = "management" if service == "ManagementAPIsService" else "inference"
    of = descriptor.methods_by_name[method]
    request = message_factory.GetMessageClass(of.input_type)
    answer = message_factory.GetMessageClass(of.output_type)
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        message = request(**given)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"this cannot be sent: {error}") from None
    path = f"/{descriptor.full_name}/{method}"
    return RpcCall(which, path, message, answer, read, resend, carries_deadline=carries_deadline)
