"""The attention functions that T5 and BART have in common. They expect scaled queries."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from handlers.engines.seq2seq.cache import EncoderDecoderCache, padding_mask

_MAX_CHUNK_SCORES = 2**20
"""The number of attention scores of a long text that are computed together, in chunks of heads.

Chunks that fit into the CPU's cache take half the time.
"""


def unflatten(x: Tensor, *sizes: int) -> Tensor:
    """Split the last dimension: [..., n] -> [..., *sizes]."""
    return x.view(*x.shape[:-1], *sizes)


def encoder_self_attention(qkv: Tensor, source_lengths: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Return the attention of each text to itself: without padding on a CPU, in one call with padding on a GPU.

    Args:
        qkv: Scaled queries, keys and values of all texts, [tokens, 3, num_heads, head_dim].
        source_lengths: The number of tokens of each text.
        bias: Added to the scores, [1, num_heads, max_source_length, max_source_length].

    Returns:
        [tokens, num_heads * head_dim]
    """
    if qkv.is_cuda:
        return padded_self_attention(qkv, source_lengths, bias)
    results = []
    for text_qkv in torch.split(qkv, list(source_lengths)):
        length, num_heads = len(text_qkv), text_qkv.shape[2]
        heads_per_chunk = max(1, _MAX_CHUNK_SCORES // length**2)
        outputs = []
        for first in range(0, num_heads, heads_per_chunk):
            head_slice = slice(first, first + heads_per_chunk)
            q, k, v = text_qkv[:, :, head_slice].permute(1, 2, 0, 3)[:, None]
            head_bias = None if bias is None else bias[:, head_slice, :length, :length]
            outputs.append(_attention(q, k, v, head_bias)[0])
        results.append(torch.cat(outputs).transpose(0, 1).flatten(1))
    return torch.cat(results)


def padded_self_attention(qkv: Tensor, source_lengths: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """Return the result of `encoder_self_attention`, with one call of torch's fused attention for all texts."""
    padded = pad_sequence(list(torch.split(qkv, list(source_lengths))), batch_first=True)
    mask, max_length = bias, padded.shape[1]
    if min(source_lengths) < max_length:
        padding = padding_mask(torch.tensor(source_lengths), max_length, qkv.dtype).to(qkv.device)
        mask = padding if bias is None else bias + padding
    q, k, v = padded.permute(2, 0, 3, 1, 4)
    output = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0).transpose(1, 2).flatten(2)
    return torch.cat([text[:length] for text, length in zip(output, source_lengths, strict=True)])


def cached_self_attention(
    qkv: Tensor, layer_idx: int, cache_position: int | Tensor, cache: EncoderDecoderCache, bias: Tensor | None
) -> Tensor:
    """Add a step to the cache, and return the attention of each row to its steps up to this one.

    A `RaggedCache` has `tokens` instead of `batch_beam_size`, in a step with positions of each token.

    Args:
        qkv: Scaled queries, keys and values of the step, [batch_beam_size, 3, num_heads, head_dim].
        layer_idx: The index of the decoder layer.
        cache_position: The position of the step.
        cache: The keys and values of the earlier steps.
        bias: Added to the scores; it broadcasts to [batch_beam_size, num_heads, queries, steps].

    Returns:
        [batch_beam_size, num_heads * head_dim]
    """
    k, v = cache.update(layer_idx, cache_position, qkv[:, 1:])
    if cache.decode_attention:
        lengths, offsets = cache.query_lengths, cache.query_offsets
        return cache.decode_attention(qkv[:, :1], k, v, lengths, bias, offsets=offsets, is_causal=True)
    q = cache.group_queries(qkv[:, 0], cache.batch_beam_size)
    return cache.ungroup_queries(_attention(q.transpose(1, 2), k, v, bias).transpose(1, 2)).flatten(1)


def cross_attention(q: Tensor, layer_idx: int, cache: EncoderDecoderCache) -> Tensor:
    """Return the attention of each row to its source, whose keys and values are read once for all its rows.

    Args:
        q: Scaled queries, [batch_beam_size, num_heads, head_dim].
        layer_idx: The index of the decoder layer.
        cache: The keys and values of the sources.

    Returns:
        [batch_beam_size, num_heads * head_dim]
    """
    (k, v), scales = cache.cross_kv(layer_idx), cache.cross_kv_scales(layer_idx)
    if cache.decode_attention and cache.query_offsets is not None:
        return cache.decode_attention(
            q[:, None], k, v, cache.source_lengths, offsets=cache.query_offsets, scales=scales
        )
    grouped_q = cache.group_queries(q, cache.batch_size)
    if cache.decode_attention:
        output = cache.decode_attention(grouped_q, k, v, cache.source_lengths, scales=scales)
        return cache.ungroup_queries(output.view(*grouped_q.shape[:2], -1))
    output = _attention(grouped_q.transpose(1, 2), k, v, cache.encoder_attention_mask)
    return cache.ungroup_queries(output.transpose(1, 2)).flatten(1)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(q k^T + bias) v.

    On a CPU in bf16, torch's fused attention takes two to four times as long as separate products.
    """
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    scores = torch.matmul(q, k.transpose(2, 3))
    if bias is not None:
        scores += bias
    return torch.matmul(scores.softmax(-1), v)
