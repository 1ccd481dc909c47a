"""The state of a request while its batch is processed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from handlers.core.deadline import RequestTiming
from handlers.core.errors import HandlerError
from handlers.core.response_encoder import ResponseEncoder
from handlers.core.tensor import Payload

Item = TypeVar("Item")


@dataclass
class PendingRequest(Generic[Item]):
    """A request whose batch is being processed.

    Attributes:
        fields: The fields that TorchServe passes, without reserved keys.
        headers: The headers.
        is_grpc: True if the request came over gRPC.
        timing: The start time, deadline and ids of the request.
        encoder: The response encoder of the request's protocol.
        payloads: The inputs before decoding.
        parameters: The checked parameters.
        seconds: The request's share of the batch's time for decoding.
        end: The end of this share in `time.monotonic()` seconds; None before the first input is decoded.
        items: The decoded inputs.
        error: The request's first error, or None.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    is_grpc: bool
    timing: RequestTiming
    encoder: ResponseEncoder
    payloads: Sequence[Payload] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    end: float | None = None
    items: Sequence[Item] = ()
    error: HandlerError | None = None

    @property
    def label(self) -> str:
        """The request's label in the log: its id and protocol."""
        request_id = self.timing.request_id or self.timing.edge_id or "without id"
        path = "gRPC" if self.is_grpc else "REST"
        return f"request {request_id}, {path}{' through the proxy' if self.timing.edge_id else ''}"
