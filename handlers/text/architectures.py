"""Which architectures of `AutoModelForSeq2SeqLM` can be summarized with, and what is particular about each.

Every entry was compared with the library's own `generate()` on tiny models (tests/unit/handlers/text). A model type
that is not listed is refused: it may need inputs that a text alone does not give, and would then answer wrongly.
"""

from collections.abc import Mapping
from typing import Any

from handlers.core.errors import ConfigurationError

SERVED = frozenset(
    {
        "bart",
        "bigbird_pegasus",
        "blenderbot",
        "blenderbot-small",
        "encoder-decoder",
        "fsmt",
        "led",
        "longt5",
        "m2m_100",
        "marian",
        "mbart",
        "mt5",
        "mvp",
        "nllb-moe",
        "pegasus",
        "pegasus_x",
        "plbart",
        "prophetnet",
        "switch_transformers",
        "t5",
        "t5gemma",
        "umt5",
    }
)

_AUDIO = "it reads audio; the summarizer reads text alone"
_SEAMLESS = "it translates, and needs a target language with each call of `generate()`"
REFUSED: Mapping[str, str] = {
    "audioflamingo3": _AUDIO,
    "glmasr": _AUDIO,
    "granite_speech": _AUDIO,
    "granite_speech_plus": _AUDIO,
    "moss_transcribe_diarize": _AUDIO,
    "musicflamingo": _AUDIO,
    "nemo_speechlm": _AUDIO,
    "qwen2_audio": _AUDIO,
    "qwen3_asr": _AUDIO,
    "seamless_m4t": _SEAMLESS,
    "seamless_m4t_v2": _SEAMLESS,
    "t5gemma2": "it reads images as well as text; the summarizer reads text alone",
    "vibevoice_asr": _AUDIO,
    "voxtral": _AUDIO,
    "voxtral_realtime": _AUDIO,
}
"""Model types that the auto class loads and that are refused, with the reason."""

SEPARATE_TEXTS = frozenset({"bigbird_pegasus", "nllb-moe"})
"""Model types whose answer to a text depends on what it is padded to or batched with: one text a run."""

ENCODERS = frozenset({"bert", "bert-generation", "camembert", "electra", "roberta", "xlm-roberta"})
DECODERS = ENCODERS | {"gpt2"}
"""Model types of the two halves of an `encoder-decoder`."""

_OFFSET_POSITIONS = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Their first position is the row behind that of padding."""


def check_served(config: Mapping[str, Any], source: str = "config.json") -> None:
    """Check that a `config.json` describes an architecture that the summarizer serves correctly.

    Raises ConfigurationError with the reason; `source` is named in it.
    """
    kind: Any = config.get("model_type")
    if kind in REFUSED:
        raise ConfigurationError(f"{source}: model type {kind!r} is not served: {REFUSED[kind]}")
    if kind not in SERVED:
        raise ConfigurationError(
            f"{source}: model type {kind!r} is not served: its answers were never compared with the library's; "
            f"served are {', '.join(sorted(SERVED))}"
        )
    if kind == "encoder-decoder":
        for half, allowed in (("encoder", ENCODERS), ("decoder", DECODERS)):
            part = config.get(half)
            part_kind = part.get("model_type") if isinstance(part, Mapping) else None
            if part_kind not in allowed:
                raise ConfigurationError(
                    f"{source}: {half} of model type {part_kind!r} is not served; served are "
                    f"{', '.join(sorted(allowed))}"
                )


def position_limits(config: Any) -> tuple[int | None, int | None]:
    """How many tokens encoder and decoder have positions for; None where positions are relative.

    `config` is transformers' own. The decoder's start token takes a position, the last new token does not.
    """
    kind = config.model_type
    if kind in ("encoder-decoder", "t5gemma"):
        return _rows(config.encoder), _rows(config.decoder)
    both = _rows(config)
    if kind == "prophetnet" and both:
        # It looks up the position behind a token's as well, and its encoder clamps.
        return both, both - (config.pad_token_id or 0) - 2
    encoder = getattr(config, "max_encoder_position_embeddings", None) or both
    decoder = (
        getattr(config, "max_decoder_position_embeddings", None)
        or getattr(config, "max_target_positions", None)
        or both
    )
    return encoder, decoder


def _rows(config: Any) -> int | None:
    """`max_position_embeddings`, by whatever name, less the rows that no token has."""
    rows: int | None = getattr(config, "max_position_embeddings", None)
    if config.model_type == "gpt2":
        rows = config.n_positions
    if rows and config.model_type in _OFFSET_POSITIONS:
        rows -= (config.pad_token_id or 0) + 1
    return rows


def check_start(kind: str, generation: Any) -> None:
    """Check that a generation config says how decoding starts, as the library's documentation has it for `kind`.

    Raises ConfigurationError naming the setting.
    """
    start, forced = generation.decoder_start_token_id, generation.forced_bos_token_id
    if start is None and (kind in ("mbart", "plbart", "encoder-decoder") or generation.bos_token_id is None):
        raise _no_setting("decoder_start_token_id", "the token that decoding starts with")
    if not isinstance(start, int | None) or isinstance(start, bool):
        raise ConfigurationError(
            f"generation_config.json: 'decoder_start_token_id' must be one token id, not {start!r}"
        )
    language = kind in ("m2m_100", "nllb-moe") or (kind == "mbart" and start == generation.eos_token_id)
    if language and forced is None:
        raise _no_setting("forced_bos_token_id", "the code of the language to write")


def _no_setting(name: str, meaning: str) -> ConfigurationError:
    return ConfigurationError(
        f"generation_config.json: {name!r} is missing; set it to the id of {meaning}, which the tokenizer knows"
    )
