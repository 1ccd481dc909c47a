"""A tiny random Marian with the tokenizer files of its library, which are those of SentencePiece."""

import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.unit.handlers.text.tiny import SENTENCES, write_model
from tests.unit.handlers.text.tiny_architectures import change_json


def write_marian(folder: Path, separate: bool = False) -> Path:
    """Write a Marian without tokenizer.json, and with one vocabulary or `separate` ones.

    As in the models of OPUS-MT, the last token is for padding. It starts the output and never occurs in it.
    """
    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(folder / "source"), vocab_size=90, minloglevel=2
    )
    (folder / "source.model").rename(folder / "source.spm")
    shutil.copy(folder / "source.spm", folder / "target.spm")
    words = [line.split("\t")[0] for line in (folder / "source.vocab").read_text().splitlines()]
    (folder / "source.vocab").unlink()
    pieces = ["</s>", *(word for word in words if word not in ("<s>", "</s>")), "<pad>"]
    for name in ("vocab.json", "target_vocab.json")[: 1 + separate]:
        (folder / name).write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    files = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
    files |= {"target_vocab_file": "target_vocab.json"} if separate else {}
    tokenizer = MarianTokenizer(
        **{key: str(folder / name) for key, name in files.items()},
        separate_vocabs=separate,
        model_max_length=48,
    )
    write_model(folder, MarianMTModel, _config(len(pieces), separate), tokenizer, None, 0)
    change_json(folder / "generation_config.json", bad_words_ids=[[len(pieces) - 1]])
    return folder


def _config(vocab_size: int, separate: bool) -> MarianConfig:
    padding = vocab_size - 1
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "decoder_vocab_size": vocab_size,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 48,
        "scale_embedding": True,
        "activation_function": "swish",
        "pad_token_id": padding,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "decoder_start_token_id": padding,
    }
    if separate:
        settings |= {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    return MarianConfig(**settings)
