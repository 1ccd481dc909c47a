"""Tiny random models of every text architecture of `AutoModelForSeq2SeqLM`, with small position tables."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.unit.handlers.text.tiny import SENTENCES, byte_level, unigram, write_model

POSITIONS = 56
"""The number of rows of each position table."""

DEEPER = ", deeper decoder"
"""The suffix of names of models whose decoder has more layers than the encoder. Tests must pass a cache to
`generate()`, which would create a cache with too few layers."""

_LIKE_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": POSITIONS,
}
_LIKE_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_UNIGRAM_IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1}
_LANGUAGE = "__en__"


def change_json(path: Path, **settings: Any) -> None:
    """Set keys of a JSON object. None removes a key."""
    content = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _write(folder: Path, architecture: str, config_class: str, tokenizer: Any, **settings: Any) -> Path:
    rows = {"vocab_size": len(tokenizer)} | settings
    config = getattr(transformers, config_class)(**rows)
    return write_model(folder, getattr(transformers, architecture), config, tokenizer, None, 0)


def _bart_like(architecture: str, config: str, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: _write(folder, architecture, config, byte_level(), **_LIKE_BART, **settings)


def _pegasus_like(architecture: str, config: str, **settings: Any) -> Callable[[Path], Path]:
    settings = _LIKE_BART | _UNIGRAM_IDS | settings
    return lambda folder: _write(folder, architecture, config, unigram(200), **settings)


def _t5_like(architecture: str, config: str, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: _write(folder, architecture, config, unigram(64), **(_LIKE_T5 | settings))


def _translator(architecture: str, config: str, **settings: Any) -> Callable[[Path], Path]:
    """Return a writer of a model whose output starts with the code of a language."""

    def write(folder: Path) -> Path:
        tokenizer = byte_level(languages=(_LANGUAGE,))
        code = tokenizer.convert_tokens_to_ids(_LANGUAGE)
        starts = config in ("MBartConfig", "PLBartConfig")
        _write(folder, architecture, config, tokenizer, **(_LIKE_BART | settings))
        change_json(
            folder / "generation_config.json",
            **(
                {"decoder_start_token_id": code}
                if starts
                else {"decoder_start_token_id": 2, "forced_bos_token_id": code}
            ),
        )
        return folder

    return write


def _wordpiece(cls: str = "[CLS]", sep: str = "[SEP]") -> PreTrainedTokenizerFast:
    words = sorted({word.strip(".,!;").lower() for sentence in SENTENCES for word in sentence.split()})
    letters = sorted({letter for word in words for letter in word} | set(".,!;"))
    special = ["[PAD]", cls, sep, "[UNK]"]
    vocabulary = [*special, *words, *letters, *(f"##{letter}" for letter in letters)]
    table = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(cls, 1), (sep, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token=cls, sep_token=sep, unk_token="[UNK]"
    )


def _prophetnet(folder: Path, layers: int = 2) -> Path:
    settings = {
        "hidden_size": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": layers,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": POSITIONS,
        "ngram": 2,
        "num_buckets": 8,
        "relative_max_distance": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    return _write(folder, "ProphetNetForConditionalGeneration", "ProphetNetConfig", _wordpiece(), **settings)


def _encoder_decoder(encoder: str, decoder: str | None = None) -> Callable[[Path], Path]:
    """Return a writer of an `encoder-decoder` model. The arguments are prefixes of config classes."""

    def write(folder: Path) -> Path:
        tokenizer = _wordpiece()
        part = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        halves = (getattr(transformers, f"{kind}Config") for kind in (encoder, decoder or encoder))
        config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
            *(make(**_half(make.model_type, part)) for make in halves)
        )
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
        return write_model(folder, transformers.EncoderDecoderModel, config, tokenizer, None, 0)

    return write


def _half(kind: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an encoder or decoder, renamed for its model type."""
    if kind == "gpt2":
        named = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}
        named |= {"n_inner": "intermediate_size", "n_positions": "max_position_embeddings"}
        renamed = {name: part[key] for name, key in named.items()}
        return renamed | {key: value for key, value in part.items() if key not in named.values()}
    return dict(part) | ({"embedding_size": 16} if kind == "electra" else {})


def _fsmt(folder: Path) -> Path:
    tokenizer = byte_level()
    settings: dict[str, Any] = {"src_vocab_size": len(tokenizer), "tgt_vocab_size": len(tokenizer)}
    settings |= {"langs": ["en", "en"], "decoder": {}, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
    return _write(folder, "FSMTForConditionalGeneration", "FSMTConfig", tokenizer, **(_LIKE_BART | settings))


def _gemma_part(rows: int) -> dict[str, Any]:
    return {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "max_position_embeddings": POSITIONS,
        "sliding_window": 16,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }


def _t5gemma(folder: Path) -> Path:
    tokenizer = unigram(200)
    part = _gemma_part(len(tokenizer))
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    settings = {"encoder": part, "decoder": part, **tokens}
    _write(folder, "T5GemmaForConditionalGeneration", "T5GemmaConfig", tokenizer, **settings)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if "post_cross_attn_layernorm" in name:  # otherwise the output would not depend on the input
            tensor.add_(8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


WRITERS: Mapping[str, Callable[[Path], Path]] = {
    "bart": _bart_like("BartForConditionalGeneration", "BartConfig"),
    "bigbird_pegasus": _pegasus_like(
        "BigBirdPegasusForConditionalGeneration",
        "BigBirdPegasusConfig",
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=1,
        max_position_embeddings=128,
    ),
    "blenderbot": _bart_like(
        "BlenderbotForConditionalGeneration", "BlenderbotConfig", decoder_start_token_id=0
    ),
    "blenderbot-small": _bart_like(
        "BlenderbotSmallForConditionalGeneration", "BlenderbotSmallConfig", decoder_start_token_id=0
    ),
    "encoder-decoder": _encoder_decoder("Bert"),
    "encoder-decoder, roberta": _encoder_decoder("Roberta"),
    "encoder-decoder, xlm-roberta": _encoder_decoder("XLMRoberta"),
    "encoder-decoder, camembert": _encoder_decoder("Camembert"),
    "encoder-decoder, electra": _encoder_decoder("Electra"),
    "encoder-decoder, bert-generation": _encoder_decoder("BertGeneration"),
    "encoder-decoder, bert and gpt2": _encoder_decoder("Bert", "GPT2"),
    "fsmt": _fsmt,
    "led": lambda folder: _write(
        folder,
        "LEDForConditionalGeneration",
        "LEDConfig",
        byte_level(),
        **{key: value for key, value in _LIKE_BART.items() if key != "max_position_embeddings"},
        attention_window=[8, 8],
        max_encoder_position_embeddings=128,
        max_decoder_position_embeddings=POSITIONS,
    ),
    "longt5": _t5_like(
        "LongT5ForConditionalGeneration",
        "LongT5Config",
        encoder_attention_type="transient-global",
        local_radius=7,
        global_block_size=4,
    ),
    "longt5, local": _t5_like(
        "LongT5ForConditionalGeneration", "LongT5Config", encoder_attention_type="local", local_radius=7
    ),
    "m2m_100": _translator("M2M100ForConditionalGeneration", "M2M100Config"),
    "marian": _pegasus_like(
        "MarianMTModel", "MarianConfig", bad_words_ids=[[0]], num_beams=1, scale_embedding=True
    ),
    "mbart": _translator("MBartForConditionalGeneration", "MBartConfig"),
    "mt5": _t5_like("MT5ForConditionalGeneration", "MT5Config"),
    "mvp": _bart_like("MvpForConditionalGeneration", "MvpConfig"),
    "nllb-moe": _translator(
        "NllbMoeForConditionalGeneration",
        "NllbMoeConfig",
        num_experts=4,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
    ),
    "pegasus": _pegasus_like("PegasusForConditionalGeneration", "PegasusConfig", scale_embedding=True),
    "pegasus_x": _pegasus_like(
        "PegasusXForConditionalGeneration", "PegasusXConfig", block_size=8, num_global_tokens=4
    ),
    "plbart": _translator("PLBartForConditionalGeneration", "PLBartConfig"),
    "prophetnet": _prophetnet,
    f"prophetnet{DEEPER}": lambda folder: _prophetnet(folder, layers=3),
    "switch_transformers": _t5_like(
        "SwitchTransformersForConditionalGeneration",
        "SwitchTransformersConfig",
        num_experts=4,
        expert_capacity=6,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
    ),
    "t5": _t5_like("T5ForConditionalGeneration", "T5Config"),
    f"t5{DEEPER}": _t5_like("T5ForConditionalGeneration", "T5Config", num_decoder_layers=3),
    "t5gemma": _t5gemma,
    "umt5": _t5_like("UMT5ForConditionalGeneration", "UMT5Config"),
}
"""The writer of each model type. The text after a comma names a variant of the type."""
