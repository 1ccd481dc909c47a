"""Generation parameters of a request: what may be set, and how it joins with the model's defaults.

`max_length` and `min_length` count the decoder's start token, `max_new_tokens` and `min_new_tokens` do not; where a
request sets both, the latter count, as in transformers. What a request sets goes before what the model's files say,
also across the two ways to say it (transformers lets a model's `max_new_tokens` go before a call's `max_length`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from handlers.core.errors import InvalidParameter
from handlers.core.parameters import Parameter
from handlers.text.generation import GenerationParameters


@dataclass(frozen=True)
class GenerationLimits:
    """The server's and the model's bounds on one summary."""

    max_new_tokens: int
    max_num_beams: int

    def parameters(self, defaults: GenerationParameters | None = None) -> tuple[Parameter, ...]:
        """What a request may set, and a model's defaults where they are given."""
        tokens, length = self.max_new_tokens, self.max_new_tokens + 1
        all_parameters = (
            Parameter("max_new_tokens", int, 1, tokens, help="tokens of the summary, at most"),
            Parameter("min_new_tokens", int, 0, tokens, help="tokens of the summary, at least"),
            Parameter("max_length", int, 2, length, help="max_new_tokens + 1: counts the start token"),
            Parameter("min_length", int, 0, length, help="min_new_tokens + 1: counts the start token"),
            Parameter("num_beams", int, 1, self.max_num_beams, help="1 is greedy, more is beam search"),
            # Beyond these the penalized scores leave the range in which beam search compares them.
            Parameter("length_penalty", float, -2, 5, help="of beam search; above 0 favors longer summaries"),
            Parameter("no_repeat_ngram_size", int, 0, tokens, help="no n-gram of this size twice; 0 is off"),
            Parameter(
                "early_stopping", bool, choices=("never",), help="of beam search: when to stop looking"
            ),
            Parameter(
                "truncation",
                bool,
                choices=("do_not_truncate", "longest_first", "only_first", "only_second"),
                help="cut a text that is too long for the model (the default), or refuse it",
                default=True,
            ),
            Parameter(
                "clean_up_tokenization_spaces",
                bool,
                help="no space before punctuation; default: the tokenizer's",
            ),
        )
        own = asdict(defaults) if defaults else {}
        return tuple(replace(each, default=own.get(each.name, each.default)) for each in all_parameters)

    def clamp(self, defaults: GenerationParameters) -> GenerationParameters:
        """A model's defaults, cut to the limits."""
        longest = min(defaults.max_new_tokens, self.max_new_tokens)
        return _simplest(
            replace(
                defaults,
                max_new_tokens=longest,
                min_new_tokens=min(defaults.min_new_tokens, longest),
                num_beams=min(defaults.num_beams, self.max_num_beams),
            )
        )


def resolve(request: Mapping[str, Any], defaults: GenerationParameters) -> GenerationParameters:
    """One item's parameters, from checked request values. Raises InvalidParameter for a minimum above the maximum."""
    longest, longest_words = _length(request, "max", defaults.max_new_tokens)
    shortest, shortest_words = _length(request, "min", defaults.min_new_tokens)
    if shortest > longest:
        if "min_new_tokens" in request or "min_length" in request:
            raise InvalidParameter(f"{shortest_words} must not be above {longest_words}")
        # The model's own minimum gives way: generation ends at the maximum, as in transformers.
        shortest = longest
    names = ("num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping")
    chosen = {name: request[name] for name in names if name in request}
    return _simplest(replace(defaults, max_new_tokens=longest, min_new_tokens=shortest, **chosen))


def truncates(request: Mapping[str, Any]) -> bool:
    """Whether a text that is too long is cut; the strings are those of huggingface_hub's client.

    `only_second` cuts the second of two texts, and there is only one.
    """
    return request.get("truncation", True) not in (False, "do_not_truncate", "only_second")


def _length(request: Mapping[str, Any], bound: str, default: int) -> tuple[int, str]:
    """A length in new tokens, and the parameter that set it in words."""
    for name, start_tokens in ((f"{bound}_new_tokens", 0), (f"{bound}_length", 1)):
        if name in request:
            return max(0, request[name] - start_tokens), f"'{name}' ({request[name]})"
    return default, f"'{bound}_new_tokens' ({default}, the model's default)"


def _simplest(parameters: GenerationParameters) -> GenerationParameters:
    """Without what has no effect, so that more items share a batch."""
    if parameters.num_beams == 1:
        return replace(parameters, length_penalty=1.0, early_stopping=False)
    return parameters
