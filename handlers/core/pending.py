"""One request on its way through a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from handlers.core.deadline import Arrival
from handlers.core.errors import HandlerError
from handlers.core.reply import Reply
from handlers.core.tensor import Payload

Item = TypeVar("Item")


@dataclass
class PendingRequest(Generic[Item]):
    """A request of the batch: its items, or its first error.

    Attributes:
        fields: What TorchServe hands on, without reserved keys.
        reply: Writes the answer in the request's protocol.
        seconds: Its share of the time for decoding, which runs from the first input that is begun until `end`.
    """

    fields: Mapping[str, Any]
    headers: Mapping[str, Any]
    is_grpc: bool
    arrival: Arrival
    reply: Reply
    payloads: Sequence[Payload] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    end: float | None = None
    items: Sequence[Item] = ()
    error: HandlerError | None = None

    @property
    def label(self) -> str:
        """The request in the log: its id, and by which way it came."""
        request_id = self.arrival.request_id or self.arrival.edge_id or "without id"
        path = "gRPC" if self.is_grpc else "REST"
        return f"request {request_id}, {path}{' through the proxy' if self.arrival.edge_id else ''}"
