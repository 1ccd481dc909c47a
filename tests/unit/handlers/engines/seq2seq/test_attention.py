"""Attention of the encoder."""

import pytest
import torch

from handlers.engines.seq2seq.attention import encoder_self_attention, padded_self_attention


@pytest.mark.parametrize("lengths", [[5], [4, 4], [1, 7, 3]])
@pytest.mark.parametrize("biased", [False, True])
def test_padding_does_not_change_the_attention_of_a_text(lengths: list[int], biased: bool) -> None:
    torch.manual_seed(1)
    qkv = torch.randn(sum(lengths), 3, 2, 8)
    bias = torch.randn(1, 2, max(lengths), max(lengths)) if biased else None
    expected = encoder_self_attention(qkv, lengths, bias)
    torch.testing.assert_close(padded_self_attention(qkv, lengths, bias), expected)
