"""Encode responses of the Open Inference Protocol, in JSON or with the binary data extension.

TorchServe's gRPC service parses the handler's JSON. A response without `id`, `model_name`, `model_version` or
`outputs` kills the worker, so an error over gRPC must also be a complete response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import HandlerError, InvalidRequest
from handlers.core.response_encoder import AnswerEncoder, ResponseBody, to_json
from handlers.core.tensor import Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a request selects. `binary` is None for the request's default."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True)
class OpenInferenceEncoder:
    """An encoder of Open Inference Protocol responses.

    Attributes:
        id: The request's id.
        model_name: The name under which clients address the model.
        model_version: The model's version.
        grpc: True if the request came over TorchServe's gRPC.
        requested_outputs: The outputs that the request selects; empty for all outputs.
        binary: True if outputs are binary data by default.
    """

    id: str
    model_name: str
    model_version: str
    grpc: bool = False
    requested_outputs: tuple[RequestedOutput, ...] = ()
    binary: bool = False

    def encode_answers(self, task: AnswerEncoder, answers: Sequence[Any]) -> Any:
        """Return the response. Raises InvalidRequest if the model does not have a requested output."""
        tensors = {tensor.name: tensor for tensor in task.outputs(answers)}
        for output in self.requested_outputs:
            if output.name not in tensors:
                raise InvalidRequest(
                    f"unknown output '{output.name[:60]}'; this model has: {', '.join(tensors)}"
                )
        outputs: list[dict[str, Any]] = []
        contents: list[bytes] = []
        for requested in self.requested_outputs or [RequestedOutput(name) for name in tensors]:
            tensor = tensors[requested.name]
            if self.binary if requested.binary is None else requested.binary:
                values, content = tensor.as_binary()
                contents.append(content)
            else:
                values = tensor.as_dict()
            outputs.append(values)
        message = self._message(outputs)
        if not contents:
            return message
        header = to_json(message)
        headers = {HEADER_LENGTH: str(len(header))}
        return ResponseBody(b"".join([header, *contents]), "application/octet-stream", headers)

    def encode_error(self, error: HandlerError) -> Any:
        """Return the error. Over gRPC, return a response whose tensor `error` contains the error as JSON."""
        if self.grpc:
            text = to_json(error.as_dict()).decode()
            return self._message([Tensor("error", "BYTES", (1,), [text]).as_dict()])
        return error.as_dict()

    def _message(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "outputs": outputs,
        }
