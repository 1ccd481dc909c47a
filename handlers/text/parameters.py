"""The generation parameters of a request, and how they are combined with the model's defaults.

`max_length` and `min_length` count the decoder's start token, `max_new_tokens` and `min_new_tokens` do not. If a
request sets both, the latter take precedence, as in transformers. A request takes precedence over the model's files,
even if one sets `max_length` and the other `max_new_tokens` (in transformers a model's `max_new_tokens` takes
precedence over a call's `max_length`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import Parameter
from handlers.engines.seq2seq.generation_types import GenerationParameters


@dataclass(frozen=True)
class GenerationLimits:
    """The limits of server and model for one summary."""

    max_new_tokens: int
    max_num_beams: int

    def parameters(self, defaults: GenerationParameters | None = None) -> tuple[Parameter, ...]:
        """Return the parameters that a request may set, with the model's `defaults` in their descriptions."""
        tokens, length = self.max_new_tokens, self.max_new_tokens + 1
        all_parameters = (
            Parameter("max_new_tokens", int, 1, tokens, help="maximum number of tokens of the summary"),
            Parameter("min_new_tokens", int, 0, tokens, help="minimum number of tokens of the summary"),
            Parameter("max_length", int, 2, length, help="max_new_tokens + 1, for the start token"),
            Parameter("min_length", int, 0, length, help="min_new_tokens + 1, for the start token"),
            Parameter("num_beams", int, 1, self.max_num_beams, help="number of beams; 1 is greedy search"),
            # Beyond these limits the penalized scores leave the range in which beam search compares them.
            Parameter("length_penalty", float, -2, 5, help="beam search: above 0 favors longer summaries"),
            Parameter(
                "no_repeat_ngram_size", int, 0, tokens, help="size of n-grams that may not repeat; 0 for none"
            ),
            Parameter("early_stopping", bool, choices=("never",), help="when beam search stops"),
            Parameter(
                "truncation",
                bool,
                choices=("do_not_truncate", "longest_first", "only_first", "only_second"),
                help="truncate a text that is too long for the model (the default), or reject it",
                default=True,
            ),
            Parameter(
                "clean_up_tokenization_spaces",
                bool,
                help="remove spaces before punctuation; default: the tokenizer's",
            ),
        )
        values = asdict(defaults) if defaults else {}
        return tuple(
            replace(parameter, default=values.get(parameter.name, parameter.default))
            for parameter in all_parameters
        )

    def clamp(self, defaults: GenerationParameters) -> GenerationParameters:
        """Return a model's defaults, reduced to the limits."""
        longest = min(defaults.max_new_tokens, self.max_new_tokens)
        return _normalize(
            replace(
                defaults,
                max_new_tokens=longest,
                min_new_tokens=min(defaults.min_new_tokens, longest),
                num_beams=min(defaults.num_beams, self.max_num_beams),
            )
        )


def resolve_parameters(request: Mapping[str, Any], defaults: GenerationParameters) -> GenerationParameters:
    """Return the parameters of one item.

    Args:
        request: The checked parameters of the request.
        defaults: The model's defaults within the limits.

    Raises:
        InvalidParameter: The request's minimum length is above the maximum.
    """
    max_new_tokens, max_source = _length(request, "max", defaults.max_new_tokens)
    min_new_tokens, min_source = _length(request, "min", defaults.min_new_tokens)
    if min_new_tokens > max_new_tokens:
        if "min_new_tokens" in request or "min_length" in request:
            raise InvalidParameter(f"{min_source} must not be above {max_source}")
        # The model's minimum has no effect above the maximum, at which generation ends as in transformers.
        min_new_tokens = max_new_tokens
    names = ("num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping")
    search_parameters = {name: request[name] for name in names if name in request}
    return _normalize(
        replace(defaults, max_new_tokens=max_new_tokens, min_new_tokens=min_new_tokens, **search_parameters)
    )


def should_truncate(request: Mapping[str, Any]) -> bool:
    """Return whether a text that is too long is truncated.

    The strings are those of huggingface_hub's client. `only_second` would truncate the second of two texts.
    """
    return request.get("truncation", True) not in (False, "do_not_truncate", "only_second")


def _length(request: Mapping[str, Any], bound: str, default: int) -> tuple[int, str]:
    """Return a length in new tokens, and the parameter that set it for error messages."""
    for name, start_tokens in ((f"{bound}_new_tokens", 0), (f"{bound}_length", 1)):
        if name in request:
            return max(0, request[name] - start_tokens), f"'{name}' ({request[name]})"
    return default, f"'{bound}_new_tokens' ({default}, the model's default)"


def _normalize(parameters: GenerationParameters) -> GenerationParameters:
    """Reset parameters that have no effect, so that more items can share a batch."""
    if parameters.num_beams == 1:
        return replace(parameters, length_penalty=1.0, early_stopping=False)
    return parameters
