"""Parameters that standard clients of other servers send and that have no effect here. Other values are rejected.

docs/api.md lists them in a table. Any other value would change the answer or request a feature that does not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidParameter, InvalidRequest
from handlers.core.parameters import format_value

TRANSFORMERS = "the default of transformers' GenerationConfig"
PIPELINE = "the default of transformers' summarization pipeline"
MLSERVER = "MLServer's codecs"
MLSERVER_TYPES = "MLServer's types, which have the field"
TENSORFLOW = "the tutorials of TensorFlow Serving, which defined KServe's V1 protocol"
TRITON = (
    "tritonclient's `timeout=` and `priority=`, which Triton ignores unless a model is configured for them"
)
HUB_OPTIONS = (
    "huggingface.js before 3.0 and huggingface_hub's InferenceApi; the options are for the hub's service"
)


@dataclass(frozen=True)
class IgnoredParameter:
    """A parameter that is accepted only with values that have no effect.

    Attributes:
        name: The parameter's name.
        values: The accepted values.
        source: The client or library that sends the parameter.
        kind: A type of which all values are accepted, except for negative integers; None for `values` only.
    """

    name: str
    values: tuple[Any, ...]
    source: str
    kind: type | None = None

    def check(self, value: Any) -> None:
        """Raise InvalidParameter for a value that is not accepted because it would change the answer."""
        if self.kind is not None:
            if type(value) is self.kind and not (isinstance(value, int) and value < 0):
                return
            kind = "an integer of at least 0" if self.kind is int else "an object"
            raise InvalidParameter(
                f"'{self.name}' has no effect, but must be {kind}, not {format_value(value)}"
            )
        if not any(_equal(value, known) for known in self.values):
            known = " or ".join(map(_as_json, self.values))
            raise InvalidParameter(
                f"'{self.name}' is not adjustable: set it to {known} or omit it, not {format_value(value)}"
            )


GENERATION = (
    IgnoredParameter("do_sample", (False,), TRANSFORMERS),
    IgnoredParameter("num_return_sequences", (1,), TRANSFORMERS),
    IgnoredParameter("num_beam_groups", (1,), TRANSFORMERS),
    IgnoredParameter("temperature", (1.0,), TRANSFORMERS),
    IgnoredParameter("top_p", (1.0,), TRANSFORMERS),
    IgnoredParameter("top_k", (50, 0), TRANSFORMERS),
    IgnoredParameter("typical_p", (1.0,), TRANSFORMERS),
    IgnoredParameter("repetition_penalty", (1.0,), TRANSFORMERS),
    IgnoredParameter("encoder_no_repeat_ngram_size", (0,), TRANSFORMERS),
    IgnoredParameter("use_cache", (True,), TRANSFORMERS),
    IgnoredParameter("return_dict_in_generate", (False,), TRANSFORMERS),
    IgnoredParameter("output_scores", (False,), TRANSFORMERS),
    IgnoredParameter("return_text", (True,), PIPELINE),
    IgnoredParameter("return_tensors", (False,), PIPELINE),
)
"""Generation parameters that a summarizer ignores. If a model's files set other values, they are not ignored."""

CONTENT_TYPE = IgnoredParameter("content_type", ("np", "str", "pd", "raw", "hf"), MLSERVER)
"""A parameter of an Open Inference request, input or output."""

BASE64_CONTENT_TYPES = ("base64", "pillow_image")
"""Values of an input's `content_type` that mark its elements as base64. MLServer's PILImageCodec sends the second."""

HEADERS = IgnoredParameter("headers", (), MLSERVER_TYPES, dict)
"""A parameter of an Open Inference request or input."""

OPEN_INFERENCE = (
    CONTENT_TYPE,
    HEADERS,
    IgnoredParameter("timeout", (), TRITON, int),
    IgnoredParameter("priority", (), TRITON, int),
)
"""Ignored parameters of an Open Inference request."""

SIGNATURE_NAME = IgnoredParameter("signature_name", ("serving_default",), TENSORFLOW)
"""An ignored field of a KServe V1 request."""

OPTIONS = (
    "wait_for_model",
    "use_cache",
    "use_gpu",
    "dont_load_model",
    "retry_on_error",
    "fetch",
    "signal",
)
"""Ignored fields of `options` in a JSON body, with any value. Source: HUB_OPTIONS."""


def drop_ignored(
    parameters: Mapping[str, Any], ignored_parameters: Sequence[IgnoredParameter]
) -> dict[str, Any]:
    """Return `parameters` without those that are null or ignored.

    Raises:
        InvalidParameter: The value of an ignored parameter would have an effect.
    """
    known = {parameter.name: parameter for parameter in ignored_parameters}
    remaining: dict[str, Any] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if name in known:
            known[name].check(value)
        else:
            remaining[name] = value
    return remaining


def check_options(options: Any) -> None:
    """Check the field `options` of a JSON body. Raises InvalidRequest."""
    if not isinstance(options, dict):
        raise InvalidRequest("the field 'options' must be an object")
    for name in options:
        if name not in OPTIONS:
            raise InvalidRequest(
                f"unknown option '{name[:60]}'; allowed in 'options', without effect: {', '.join(OPTIONS)}; send the "
                "model's parameters in the field 'parameters'"
            )


def _equal(value: Any, known: Any) -> bool:
    return isinstance(value, bool) == isinstance(known, bool) and value == known


def _as_json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
