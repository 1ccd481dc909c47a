"""Which texts are encoded together."""

import pytest

from handlers.engines.seq2seq import encoder_decoder
from handlers.engines.seq2seq.encoder_decoder import chunk_texts


@pytest.mark.parametrize(
    ("lengths", "is_gpu", "chunks"),
    [
        ([4, 6, 1, 10, 11, 2], False, [[0, 1], [2], [3], [4], [5]]),
        ([4, 6, 1, 10, 11, 2], True, [[0, 1, 2], [3, 4], [5]]),
        ([31], True, [[0]]),
    ],
)
def test_chunks_are_limited_by_tokens_and_on_a_gpu_by_padded_tokens(
    lengths: list[int], is_gpu: bool, chunks: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_decoder, "MAX_ENCODER_TOKENS", 10)
    monkeypatch.setattr(encoder_decoder, "MAX_GPU_ENCODER_TOKENS", 22)
    assert chunk_texts(lengths, is_gpu) == chunks
