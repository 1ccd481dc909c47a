"""The interface of an encoder-decoder network, and encoding into its cache."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache

MAX_ENCODER_TOKENS = 1024
"""The number of tokens that the encoder processes together: enough for full speed, with a small working set."""

MAX_GPU_ENCODER_TOKENS = 16_384
"""The number of tokens on a GPU, with padding. It is not measured: products of 1,024 rows do not fill a GPU."""


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
    """Store the cross-attention keys and values of the texts, encoding some of them at a time."""
    is_gpu = network.shape.device.type != "cpu"
    for chunk in chunk_texts([len(text) for text in texts], is_gpu):
        for index, cross_kv in zip(chunk, network.encode([texts[i] for i in chunk]), strict=True):
            cache.set_cross_kv(index, cross_kv)


def chunk_texts(lengths: Sequence[int], is_gpu: bool) -> list[list[int]]:
    """Return the indices of the texts to encode together, in order.

    Each chunk has one text, or at most MAX_ENCODER_TOKENS, or on a GPU MAX_GPU_ENCODER_TOKENS with padding.
    """
    chunks: list[list[int]] = [[]]
    for index, length in enumerate(lengths):
        chunk_lengths = [length, *(lengths[i] for i in chunks[-1])]
        if is_gpu:
            is_full = max(chunk_lengths) * len(chunk_lengths) > MAX_GPU_ENCODER_TOKENS
        else:
            is_full = sum(chunk_lengths) > MAX_ENCODER_TOKENS
        if chunks[-1] and is_full:
            chunks.append([])
        chunks[-1].append(index)
    return chunks
