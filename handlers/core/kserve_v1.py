"""KServe's first prediction protocol: `{"instances": [...]}` in, `{"predictions": [...]}` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import HandlerError, InvalidRequest
from handlers.core.open_inference_tensors import unbase64
from handlers.core.parameters import shown
from handlers.core.reply import Writer
from handlers.core.tensor import Payload

FIELDS = ("instances", "parameters")


@dataclass(frozen=True)
class PredictionsReply:
    """One prediction for each instance, in the form of the native JSON."""

    def answer(self, writer: Writer, answers: Sequence[Any]) -> Any:
        return {"predictions": [writer.encode(answer) for answer in answers]}

    def error(self, error: HandlerError) -> Any:
        return error.as_dict()


def read_instances(instances: Any, payload_fields: tuple[str, ...]) -> Sequence[Payload]:
    """One payload an instance. Raises InvalidRequest.

    An instance is a string, `{"b64": string}` (bytes, as TensorFlow Serving writes them), or an object with one field
    that is one of those two; the string has to be in a field of `payload_fields`.
    """
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest("the field 'instances' must be a list with at least one element")
    return tuple(
        _payload(f"instances[{place}]", instance, payload_fields) for place, instance in enumerate(instances)
    )


def _payload(label: str, instance: Any, payload_fields: tuple[str, ...]) -> Payload:
    value = instance
    if isinstance(value, dict) and len(value) == 1:
        ((name, content),) = value.items()
        if name in payload_fields or isinstance(content, dict):
            value = content
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return unbase64(label, value["b64"])
    names = "', '".join(payload_fields)
    raise InvalidRequest(
        f"{label} must be a string, {{\"b64\": string}}, or an object with one field of '{names}' that is one of "
        f"these, not {shown(instance)}"
    )
