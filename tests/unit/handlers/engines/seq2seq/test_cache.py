"""The cache of a batch: removing sequences, reordering beams, and masks."""

import ctypes

import pytest
import torch

from handlers.engines.seq2seq.cache import DecoderShape, EncoderDecoderCache
from handlers.engines.seq2seq.decode_attention import DecodeAttention

CPU = torch.device("cpu")
SHAPE = DecoderShape(num_layers=1, num_heads=1, head_dim=1, dtype=torch.float32, device=CPU)


def create_filled_cache() -> EncoderDecoderCache:
    """Return a cache of three texts with one, three and two tokens and two beams each, and two steps.

    Cross-attention holds the text's index; self-attention holds the row's index plus 10 x the position.
    """
    cache = EncoderDecoderCache(SHAPE, [1, 3, 2], num_beams=2, max_cache_len=4)
    for text, length in enumerate([1, 3, 2]):
        cache.set_cross_kv(text, torch.full((length, 1, 2, 1, 1), float(text)))
    for position in range(2):
        cache.update(0, position, torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 1, 1) + 10 * position)
    return cache


def test_int8_sources_move_with_their_scales(kernels: ctypes.CDLL) -> None:
    shape = DecoderShape(num_layers=2, num_heads=3, head_dim=32, dtype=torch.float32, device=CPU)
    lengths = [4, 9, 7]
    cache = EncoderDecoderCache(shape, lengths, 1, 4, DecodeAttention(kernels, 32, int8_sources=True))
    generator = torch.Generator().manual_seed(1)
    sources = [torch.randn(length, 2, 2, 3, 32, generator=generator) * 2.0**length for length in lengths]
    for index, keys_values in enumerate(sources):
        cache.set_cross_kv(index, keys_values)
    cache.remove_sequence(0)
    for layer_idx in range(2):
        scales = cache.cross_kv_scales(layer_idx)
        assert scales is not None
        restored = cache.cross_kv(layer_idx) * scales[..., None]
        for index, source in enumerate((sources[2], sources[1])):
            expected = source[:, layer_idx].permute(1, 2, 0, 3)
            error = (restored[:, index, :, : len(source)] - expected).abs()
            assert (error <= expected.abs().amax(-1, keepdim=True) / 253).all()


def test_removed_sequence_is_replaced_by_the_last_one() -> None:
    cache = create_filled_cache()
    cache.remove_sequence(0)
    assert (cache.batch_size, cache.batch_beam_size) == (2, 4)
    keys, values = cache.update(0, 2, torch.zeros(4, 2, 1, 1))
    assert keys.shape == (4, 1, 3, 1)
    assert keys[:, 0, 0, 0].tolist() == values[:, 0, 0, 0].tolist() == [4, 5, 2, 3]
    assert cache.cross_kv(0)[0, :, 0, 0, 0].tolist() == [2, 1]
    mask = cache.encoder_attention_mask
    assert mask is not None
    assert mask.isinf()[:, 0, 0].tolist() == [[False, False, True], [False] * 3]
    cache.remove_sequence(1)
    cache.remove_sequence(0)
    assert cache.batch_beam_size == 0


def test_reordered_beams_keep_steps_before_the_first_position() -> None:
    cache = create_filled_cache()
    cache.reorder_cache(torch.tensor([1, 1, 2, 3, 5, 4]), 1)
    keys, _ = cache.update(0, 2, torch.zeros(6, 2, 1, 1))
    assert keys[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert keys[:, 0, 1, 0].tolist() == [11, 11, 12, 13, 15, 14]


def test_texts_of_equal_length_have_no_mask() -> None:
    assert EncoderDecoderCache(SHAPE, [3, 3], 1, 1).encoder_attention_mask is None


def test_compiled_step_beyond_the_cache_is_rejected() -> None:
    cache = EncoderDecoderCache(SHAPE, [1], num_beams=1, max_cache_len=4)
    cache.start_compiled_step(3)
    with pytest.raises(AssertionError):
        cache.start_compiled_step(4)
