"""The interface of an encoder-decoder network, and encoding into its cache."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache

MAX_ENCODER_TOKENS = 1024
"""The number of tokens that the encoder processes together: enough for full speed, with a small working set."""


class EncoderDecoder(Protocol):
    """An encoder-decoder network whose decoder computes one step at a time."""

    shape: DecoderShape
    vocab_size: int

    def encode(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """Return the cross-attention keys and values of each text.

        Args:
            texts: Token ids, [tokens] each.

        Returns:
            [tokens, num_layers, 2 (keys, values), num_heads, head_dim] for each text.
        """
        ...

    def decode_step(self, tokens: Tensor, cache_position: int | Tensor, cache: EncoderDecoderCache) -> Tensor:
        """Return the logits of the next token, float32 [batch_beam_size, vocab_size].

        Args:
            tokens: The newest token of each row, [batch_beam_size].
            cache_position: The position of these tokens. A tensor [1] requires a `StaticEncoderDecoderCache`: the
                step then executes the same operations at each position, so that it can be captured.
            cache: Keys and values, which this step extends.
        """
        ...


def encode_into_cache(network: EncoderDecoder, cache: EncoderDecoderCache, texts: Sequence[Tensor]) -> None:
    """Store the cross-attention keys and values of the texts, encoding up to MAX_ENCODER_TOKENS at a time."""
    chunk: list[int] = []
    for index, text in enumerate(texts):
        if chunk and sum(len(texts[i]) for i in chunk) + len(text) > MAX_ENCODER_TOKENS:
            _encode_chunk(network, cache, texts, chunk)
            chunk = []
        chunk.append(index)
    _encode_chunk(network, cache, texts, chunk)


def _encode_chunk(
    network: EncoderDecoder, cache: EncoderDecoderCache, texts: Sequence[Tensor], indices: Sequence[int]
) -> None:
    for index, cross_kv in zip(indices, network.encode([texts[i] for i in indices]), strict=True):
        cache.set_cross_kv(index, cross_kv)
