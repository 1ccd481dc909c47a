"""The architectures of `AutoModelForSeq2SeqLM` that the summarizer serves, and their limits.

Each of them was compared with transformers' `generate()` on tiny models (tests/unit/handlers/text). Other model types
are rejected: they may require inputs other than text, and would then generate wrong summaries.
"""

from collections.abc import Mapping
from typing import Any

from handlers.core.errors import ConfigurationError

SUPPORTED_MODEL_TYPES = frozenset(
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

_AUDIO = "its input is audio, and the summarizer accepts only text"
_SEAMLESS = "it requires a target language for each call of `generate()`"
REJECTED_MODEL_TYPES: Mapping[str, str] = {
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
    "t5gemma2": "its input includes images, and the summarizer accepts only text",
    "vibevoice_asr": _AUDIO,
    "voxtral": _AUDIO,
    "voxtral_realtime": _AUDIO,
}
"""Model types that the auto class loads and the summarizer rejects, with the reason."""

SUPPORTED_ENCODERS = frozenset({"bert", "bert-generation", "camembert", "electra", "roberta", "xlm-roberta"})
SUPPORTED_DECODERS = SUPPORTED_ENCODERS | {"gpt2"}
"""The supported model types of encoder and decoder in an `encoder-decoder` model."""

_OFFSET_POSITIONS = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Model types whose first position is in the row after the row of the padding token."""


def check_architecture(config: Mapping[str, Any], source: str = "config.json") -> None:
    """Check that the summarizer supports the architecture in a `config.json`.

    Args:
        config: The content of the file.
        source: Its name in error messages.

    Raises:
        ConfigurationError: The architecture is not supported.
    """
    model_type: Any = config.get("model_type")
    if model_type in REJECTED_MODEL_TYPES:
        raise ConfigurationError(
            f"{source}: model type {model_type!r} is not supported: {REJECTED_MODEL_TYPES[model_type]}"
        )
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise ConfigurationError(
            f"{source}: model type {model_type!r} is not supported; "
            f"supported types: {', '.join(sorted(SUPPORTED_MODEL_TYPES))}"
        )
    if model_type == "encoder-decoder":
        for half, allowed in (("encoder", SUPPORTED_ENCODERS), ("decoder", SUPPORTED_DECODERS)):
            part = config.get(half)
            part_type = part.get("model_type") if isinstance(part, Mapping) else None
            if part_type not in allowed:
                raise ConfigurationError(
                    f"{source}: {half} of model type {part_type!r} is not supported; supported types: "
                    f"{', '.join(sorted(allowed))}"
                )


def position_limits(config: Any) -> tuple[int | None, int | None]:
    """Return the number of tokens that encoder and decoder have positions for; None if positions are relative.

    The decoder's start token takes a position; the last new token does not.

    Args:
        config: The configuration of transformers.
    """
    if config.model_type in ("encoder-decoder", "t5gemma"):
        return _rows(config.encoder), _rows(config.decoder)
    both = _rows(config)
    if config.model_type == "prophetnet" and both:
        # The decoder also looks up the position after that of a token; the encoder clamps positions.
        return both, both - (config.pad_token_id or 0) - 2
    encoder = getattr(config, "max_encoder_position_embeddings", None) or both
    decoder = (
        getattr(config, "max_decoder_position_embeddings", None)
        or getattr(config, "max_target_positions", None)
        or both
    )
    return encoder, decoder


def _rows(config: Any) -> int | None:
    """Return the number of position embeddings, without unused rows."""
    rows: int | None = getattr(config, "max_position_embeddings", None)
    if config.model_type == "gpt2":
        rows = config.n_positions
    if rows and config.model_type in _OFFSET_POSITIONS:
        rows -= (config.pad_token_id or 0) + 1
    return rows
