"""Networks with random weights that copy phrases of their source, as summarizers do.

An induction head (Olsson et al. 2022, https://arxiv.org/abs/2209.11895) from decoder to encoder is written into the
random weights of a T5 or BART. The network keeps its architecture, size and cost:

- Each word's embedding has a random key in the dimensions `_KEY`. A head of the first encoder layer attends to the
  previous token, and copies the previous token's key into the dimensions `_PREVIOUS`, which are 0 elsewhere.
- The embedding contains the key a second time, in `_QUERY`. The last cross-attention compares that of the newest
  word with `_PREVIOUS` of the source, so it finds the word that follows the newest one there. It adds that word's
  embedding, which determines the next word.
- In the embedding of a word that ends a phrase, `_QUERY` is 0. Then the query consists of what the random layers
  wrote there, so a pseudo-random word of the source begins the next phrase.

Almost every generated word is therefore one of the source. The lengths of copied phrases depend on the share of words
that end a phrase. The other layers remain random, with a lower gain, so that embeddings are not lost in their noise.
"""

from typing import Any

import torch
from torch import Tensor

_HEAD_DIM = 64
"""The size of a head of T5-small and BART-large, and of a key."""
_KEY, _QUERY, _PREVIOUS, _POSITION = (slice(i * _HEAD_DIM, (i + 1) * _HEAD_DIM) for i in range(4))
_RANDOM_GAIN = 0.2
_COPY_GAIN = 16.0
_SCORE = 150.0
"""About the attention score of a match. Scores of other tokens are around 0, so that one token has all the weight."""


def add_copying(network: Any, ends_phrase: Tensor) -> None:
    """Change the weights of a new network in place.

    Args:
        network: `T5ForConditionalGeneration` or `BartForConditionalGeneration` with heads of 64 dimensions.
        ends_phrase: Whether each token ends a phrase, [vocabulary].
    """
    is_t5 = network.config.model_type == "t5"
    with torch.no_grad():
        embedding = network.get_input_embeddings().weight
        scale = embedding.std()
        embedding[:, _KEY] = embedding[:, _KEY].sign() * scale
        embedding[:, _QUERY] = embedding[:, _KEY] * ~ends_phrase[:, None]
        embedding[:, _PREVIOUS] = 0.0
        for name, module in network.named_modules():
            if name.rpartition(".")[2] in (
                "o",
                "wo",
                "out_proj",
                "fc2",
            ):  # outputs of attention and feed-forward
                module.weight *= _RANDOM_GAIN
                module.weight[_PREVIOUS] = 0.0
        if is_t5:
            encoder_attention = network.encoder.block[0].layer[0].SelfAttention
            cross_attention = network.decoder.block[-1].layer[1].EncDecAttention
            _attend_to_previous_t5(encoder_attention)
            _mix_in_earlier_token_t5(network.decoder.block[0].layer[0].SelfAttention)
        else:
            encoder_attention = network.model.encoder.layers[0].self_attn
            cross_attention = network.model.decoder.layers[-1].encoder_attn
            embedding[:, _POSITION] = 0.0
            _attend_to_previous_bart(encoder_attention, network.model.encoder.embed_positions.weight, scale)
        _copy_previous_keys(encoder_attention)
        _copy_matches(cross_attention, _SCORE / _HEAD_DIM * (1 if is_t5 else _HEAD_DIM**0.5))


def _projections(attention: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights of query, key, value and output."""
    names = ("q", "k", "v", "o") if hasattr(attention, "q") else ("q_proj", "k_proj", "v_proj", "out_proj")
    q, k, v, o = (getattr(attention, name).weight for name in names)
    return q, k, v, o


def _attend_to_previous_t5(attention: Any) -> None:
    """Let the first head of all encoder layers, which share the position bias, attend to the previous token."""
    query, *_ = _projections(attention)
    query[:_HEAD_DIM] = 0.0
    attention.relative_attention_bias.weight[1, 0] = _SCORE  # bucket 1 is a distance of -1


def _mix_in_earlier_token_t5(attention: Any) -> None:
    """Let the first head of the decoder attend to the token three steps ago, with its full gain.

    A T5 has no absolute positions. Without this head, the same word would always begin the same phrase.
    """
    query, *_, output = _projections(attention)
    query[:_HEAD_DIM] = 0.0
    attention.relative_attention_bias.weight[3, 0] = _SCORE
    output[:, :_HEAD_DIM] /= _RANDOM_GAIN


def _attend_to_previous_bart(attention: Any, positions: Tensor, scale: Tensor) -> None:
    """Let the first head attend to the previous position.

    Positions are sines and cosines of random frequencies in `_POSITION`. The query rotates them back by one position.
    """
    query, key, *_ = _projections(attention)
    frequencies = torch.rand(_HEAD_DIM // 2) * torch.pi
    angles = torch.arange(len(positions))[:, None] * frequencies
    positions.zero_()
    positions[:, _POSITION] = torch.cat([angles.cos(), angles.sin()], 1) * scale * 2**0.5
    cos, sin = frequencies.cos().diag(), frequencies.sin().diag()
    query[:_HEAD_DIM], key[:_HEAD_DIM] = 0.0, 0.0
    query[:_HEAD_DIM, _POSITION] = torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])
    query[:_HEAD_DIM] *= _SCORE / _HEAD_DIM**0.5
    key[:_HEAD_DIM, _POSITION] = torch.eye(_HEAD_DIM)


def _copy_previous_keys(attention: Any) -> None:
    """Let the first head add the key of the token that it attends to."""
    *_, value, output = _projections(attention)
    value[:_HEAD_DIM], output[:, :_HEAD_DIM] = 0.0, 0.0
    value[:_HEAD_DIM, _KEY], output[_PREVIOUS, :_HEAD_DIM] = torch.eye(_HEAD_DIM), torch.eye(_HEAD_DIM)


def _copy_matches(attention: Any, query_scale: float) -> None:
    """Let all heads add the token whose previous key is the newest token's key, each its part of the dimensions."""
    query, key, value, output = _projections(attention)
    for head in range(len(query) // _HEAD_DIM):
        rows = slice(head * _HEAD_DIM, (head + 1) * _HEAD_DIM)
        query[rows], key[rows] = 0.0, 0.0
        query[rows, _QUERY], key[rows, _PREVIOUS] = torch.eye(_HEAD_DIM) * query_scale, torch.eye(_HEAD_DIM)
    value.copy_(torch.eye(len(value)))
    output.copy_(torch.eye(len(value)) * _COPY_GAIN)
