"""KServe's V1 protocol: `{"instances": [...]}` in requests, `{"predictions": [...]}` in responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import HandlerError, InvalidRequest
from handlers.core.open_inference_tensors import decode_base64_element
from handlers.core.parameters import format_value
from handlers.core.response_encoder import AnswerEncoder
from handlers.core.tensor import Payload

FIELDS = ("instances", "parameters")


@dataclass(frozen=True)
class KServeV1Encoder:
    """An encoder of responses with one prediction, in its native JSON form, for each instance."""

    def encode_answers(self, task: AnswerEncoder, answers: Sequence[Any]) -> Any:
        return {"predictions": [task.encode(answer) for answer in answers]}

    def encode_error(self, error: HandlerError) -> Any:
        return error.as_dict()


def read_instances(instances: Any, payload_fields: tuple[str, ...]) -> Sequence[Payload]:
    """Return the payload of each instance.

    An instance is a string, `{"b64": string}` (TensorFlow Serving's form of bytes), or an object with one field that
    holds one of these. A field that holds a string must be in `payload_fields`.

    Raises:
        InvalidRequest: The list is empty, or an instance has another form.
    """
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest("the field 'instances' must be a list with at least one element")
    return tuple(
        _payload(f"instances[{index}]", instance, payload_fields) for index, instance in enumerate(instances)
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
        return decode_base64_element(label, value["b64"])
    names = "', '".join(payload_fields)
    raise InvalidRequest(
        f"{label} must be a string, {{\"b64\": string}}, or an object with one field of '{names}' that is one of "
        f"these, not {format_value(instance)}"
    )
