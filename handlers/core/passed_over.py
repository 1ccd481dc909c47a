"""What other servers' standard clients send although it changes nothing here: accepted, and passed over.

This is the only such list; docs/api.md has it as a table. A value that is not listed would change the answer, or ask
for something that is not offered, and is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import InvalidParameter, InvalidRequest
from handlers.core.parameters import shown

TRANSFORMERS = "the default of transformers' GenerationConfig"
PIPELINE = "the default of transformers' summarization pipeline"
MLSERVER = "MLServer's codecs"
MLSERVER_TYPES = "MLServer's types, which have the field"
TENSORFLOW = "the tutorials of TensorFlow Serving, whose protocol KServe's first one is"
TRITON = (
    "tritonclient's `timeout=` and `priority=`, which Triton ignores unless a model is configured for them"
)
HUB_OPTIONS = (
    "huggingface.js before 3.0 and huggingface_hub's InferenceApi; they are for the hub's own service"
)


@dataclass(frozen=True)
class PassedOver:
    """A name, and the values that change nothing: `values`, or all of the type `kind` (integers from 0 on)."""

    name: str
    values: tuple[Any, ...]
    source: str
    kind: type | None = None

    def check(self, value: Any) -> None:
        """Raises InvalidParameter for a value that would change something."""
        if self.kind is not None:
            if type(value) is self.kind and not (isinstance(value, int) and value < 0):
                return
            kind = "an integer of at least 0" if self.kind is int else "an object"
            raise InvalidParameter(f"'{self.name}' is ignored here, and must be {kind}, not {shown(value)}")
        if not any(_equal(value, known) for known in self.values):
            known = " or ".join(map(_as_json, self.values))
            raise InvalidParameter(
                f"'{self.name}' cannot be changed here: it must be {known}, or left out, not {shown(value)}"
            )


GENERATION = (
    PassedOver("do_sample", (False,), TRANSFORMERS),
    PassedOver("num_return_sequences", (1,), TRANSFORMERS),
    PassedOver("num_beam_groups", (1,), TRANSFORMERS),
    PassedOver("temperature", (1.0,), TRANSFORMERS),
    PassedOver("top_p", (1.0,), TRANSFORMERS),
    PassedOver("top_k", (50, 0), TRANSFORMERS),
    PassedOver("typical_p", (1.0,), TRANSFORMERS),
    PassedOver("repetition_penalty", (1.0,), TRANSFORMERS),
    PassedOver("encoder_no_repeat_ngram_size", (0,), TRANSFORMERS),
    PassedOver("use_cache", (True,), TRANSFORMERS),
    PassedOver("return_dict_in_generate", (False,), TRANSFORMERS),
    PassedOver("output_scores", (False,), TRANSFORMERS),
    PassedOver("return_text", (True,), PIPELINE),
    PassedOver("return_tensors", (False,), PIPELINE),
)
"""Parameters of a summarizer. Two of them a model's files may set otherwise; then they are not passed over."""

CONTENT_TYPE = PassedOver("content_type", ("np", "str", "pd", "raw", "hf"), MLSERVER)
"""In `parameters` of an Open Inference request, input or output."""

BASE64_CONTENT_TYPES = ("base64", "pillow_image")
"""An input's `content_type` that is obeyed: its elements are base64. The latter is MLServer's PILImageCodec's."""

HEADERS = PassedOver("headers", (), MLSERVER_TYPES, dict)
"""In `parameters` of an Open Inference request or input."""

OPEN_INFERENCE = (
    CONTENT_TYPE,
    HEADERS,
    PassedOver("timeout", (), TRITON, int),
    PassedOver("priority", (), TRITON, int),
)
"""In `parameters` of an Open Inference request."""

SIGNATURE_NAME = PassedOver("signature_name", ("serving_default",), TENSORFLOW)
"""A field beside `instances`."""

OPTIONS = (
    "wait_for_model",
    "use_cache",
    "use_gpu",
    "dont_load_model",
    "retry_on_error",
    "fetch",
    "signal",
)
"""Fields of `options`, which stands beside `inputs` in a JSON body, with any value. Source: HUB_OPTIONS."""


def without(parameters: Mapping[str, Any], passed_over: Sequence[PassedOver]) -> dict[str, Any]:
    """`parameters` without those that are null or passed over. Raises InvalidParameter."""
    known = {each.name: each for each in passed_over}
    left: dict[str, Any] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if name in known:
            known[name].check(value)
        else:
            left[name] = value
    return left


def check_options(options: Any) -> None:
    """The field `options` of a JSON body. Raises InvalidRequest."""
    if not isinstance(options, dict):
        raise InvalidRequest("the field 'options' must be an object")
    for name in options:
        if name not in OPTIONS:
            raise InvalidRequest(
                f"unknown option '{name[:60]}'; 'options' may have {', '.join(OPTIONS)}, which are ignored; "
                "the model's parameters go into the field 'parameters'"
            )


def _equal(value: Any, known: Any) -> bool:
    return isinstance(value, bool) == isinstance(known, bool) and value == known


def _as_json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
