"""A decoder whose steps are captured as CUDA graphs, one for each of a few shapes.

A captured step is bound to its addresses and shapes. Its inputs are therefore in memory that stays allocated, with
the largest shape of the batch. Masks hide positions after the current step and after the end of a text.
"""

import logging
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from handlers.core.exception_handling import is_out_of_memory
from handlers.engines.cuda_graph import GraphFunction
from handlers.engines.seq2seq.cache import MAX_DECODE_STEPS, EncoderDecoderCache, padding_mask
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder
from handlers.engines.seq2seq.generation_types import MAX_BATCH_BEAMS

_MIN_BUCKET = 32
"""The smallest number of source tokens or of steps of a captured shape."""

_MAX_GRAPHS = 64
"""The largest number of captured shapes. The least recently used one is dropped for a new one."""

CaptureFunction = Callable[[GraphFunction], GraphFunction]
"""A function that captures another one and returns a replay, which uses the same memory."""

logger = logging.getLogger(__name__)


class StaticEncoderDecoderCache(EncoderDecoderCache):
    """A cache in memory of a `CudaGraphDecoder`, with a fixed length."""

    def __init__(
        self, self_kv: Tensor, cross_kv: Tensor, encoder_attention_mask: Tensor, source_lengths: Sequence[int]
    ) -> None:
        """Clear the memory and set the mask.

        Args:
            self_kv: Memory with the shape of the self-attention keys and values in `EncoderDecoderCache`. Its batch
                size, like that of the other memory, must be at least len(source_lengths).
            cross_kv: Memory with the shape of the cross-attention keys and values in `EncoderDecoderCache`.
            encoder_attention_mask: Memory of the mask, [batch_size, 1, 1, max_source_length].
            source_lengths: The number of tokens of each source.
        """
        self._self_kv, self._cross_kv, self._encoder_attention_mask = (
            self_kv,
            cross_kv,
            encoder_attention_mask,
        )
        self.batch_size, self.num_beams = len(source_lengths), self_kv.shape[2] // cross_kv.shape[2]
        self.decode_attention = None
        self.source_lengths = torch.tensor(source_lengths)
        self._seq_length = 0
        for tensor in (self_kv, cross_kv, encoder_attention_mask):
            tensor.zero_()  # an earlier batch may have left NaN, which a mask does not hide
        mask = padding_mask(
            self.source_lengths, encoder_attention_mask.shape[-1], encoder_attention_mask.dtype
        )
        encoder_attention_mask[: self.batch_size] = mask.to(encoder_attention_mask.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of beams, of source tokens and of steps."""
        return self.num_beams, self._cross_kv.shape[4], self._self_kv.shape[4]

    def view_with_batch_size(self, batch_size: int) -> "StaticEncoderDecoderCache":
        """Return a view of the same memory with a constant batch size."""
        view = copy(self)
        view.batch_size = batch_size
        return view

    def causal_mask(self, cache_position: int | Tensor) -> Tensor:
        """Return the mask [1, 1, 1, max_cache_len]: 0 up to `cache_position`, minus infinity after it."""
        max_cache_len, dtype, device = self._self_kv.shape[4], self._self_kv.dtype, self._self_kv.device
        is_future = torch.arange(max_cache_len, device=device) > cache_position
        mask = torch.zeros(max_cache_len, dtype=dtype, device=device).masked_fill_(is_future, float("-inf"))
        return mask[None, None, None]

    def update(self, layer_idx: int, cache_position: int | Tensor, keys_values: Tensor) -> Tensor:
        """Store the keys and values of a step: [batch_beam_size, 2, num_heads, head_dim].

        Returns:
            Keys and values of all steps, including later ones:
            [2, batch_beam_size, num_heads, max_cache_len, head_dim].
        """
        self_kv = self._self_kv[layer_idx, :, : self.batch_beam_size]
        index = torch.as_tensor(cache_position, device=self_kv.device).view(1)
        self_kv.index_copy_(3, index, keys_values.transpose(0, 1)[:, :, :, None])
        return self_kv

    def set_seq_length(self, seq_length: int) -> None:
        """Set the number of stored steps, because a replayed step does not execute `update`."""
        self._seq_length = seq_length


class CudaGraphDecoder:
    """An `EncoderDecoder` whose decoder steps are captured and replayed.

    All caches share the same memory: creating a cache invalidates the previous one.

    Attributes:
        error: The reason why steps cannot be captured, or None. With an error, steps are computed eagerly.
    """

    def __init__(self, network: EncoderDecoder, capture: CaptureFunction, pool_size: int) -> None:
        """Allocate the memory of the caches.

        Args:
            network: The network that computes the steps.
            capture: Captures a step.
            pool_size: The capacity of the memory: batch size x (source tokens + beams x steps).
        """
        num_layers, num_heads, head_dim, dtype, device = self.shape = network.shape
        self.vocab_size, self.encode = network.vocab_size, network.encode
        self._network, self._capture, self._pool_size = network, capture, pool_size
        self.error: str | None = None
        self._replays: dict[tuple[int, ...], GraphFunction] = {}
        self._uncaptured: set[tuple[int, ...]] = set()
        self._kv_pool = torch.empty(
            pool_size * 2 * num_layers * num_heads * head_dim, dtype=dtype, device=device
        )
        self._encoder_attention_mask = torch.empty(pool_size, dtype=dtype, device=device)
        self._tokens = torch.zeros(MAX_BATCH_BEAMS, dtype=torch.long, device=device)
        self._cache_position = torch.zeros(1, dtype=torch.long, device=device)
        # Shared by all shapes, because each captured step would otherwise allocate separate logits.
        self._logits = torch.empty(MAX_BATCH_BEAMS, self.vocab_size, device=device)

    def create_cache(
        self, source_lengths: Sequence[int], num_beams: int, max_cache_len: int
    ) -> StaticEncoderDecoderCache | None:
        """Return a cache, or None if it is too large to be captured.

        The arguments are those of `EncoderDecoderCache`.
        """
        for key in self._uncaptured:  # for lack of memory, which may be free now
            self._replays.pop(key, None)
        self._uncaptured.clear()
        source_length = _next_power_of_two(max(source_lengths), _MIN_BUCKET)
        steps = _next_power_of_two(max_cache_len, _MIN_BUCKET)
        batch_size = _next_power_of_two(len(source_lengths))
        max_batch_size = min(
            self._pool_size // (source_length + num_beams * steps), MAX_BATCH_BEAMS // num_beams
        )
        if batch_size > max_batch_size or max_cache_len > MAX_DECODE_STEPS:
            return None
        num_layers, num_heads, head_dim, *_ = self.shape

        def pool_view(offset: int, rows: int, row_length: int, used_rows: int) -> Tensor:
            """Return [num_layers, 2, used_rows, num_heads, row_length, head_dim].

            Addresses do not depend on `used_rows`.
            """
            row_size = num_layers * 2 * num_heads * row_length * head_dim
            pool = self._kv_pool[offset : offset + rows * row_size]
            pool = pool.view(rows, num_layers, 2, num_heads, row_length, head_dim)
            return pool[:used_rows].permute(1, 2, 0, 3, 4, 5)

        cross_kv_offset = max_batch_size * num_beams * steps * num_layers * 2 * num_heads * head_dim
        mask = self._encoder_attention_mask[: batch_size * source_length]
        return StaticEncoderDecoderCache(
            pool_view(0, max_batch_size * num_beams, steps, batch_size * num_beams),
            pool_view(cross_kv_offset, max_batch_size, source_length, batch_size),
            mask.view(batch_size, 1, 1, source_length),
            source_lengths,
        )

    def decode_step(self, tokens: Tensor, cache_position: int | Tensor, cache: EncoderDecoderCache) -> Tensor:
        """See `EncoderDecoder.decode_step`. The next step overwrites the logits."""
        assert isinstance(cache, StaticEncoderDecoderCache)
        assert isinstance(cache_position, int)
        self._tokens[: len(tokens)] = tokens
        self._cache_position.fill_(cache_position)
        batch_size = _next_power_of_two(cache.batch_size)
        key = (batch_size, *cache.shape)
        replay = self._replays.pop(key, None)
        if replay is None:
            replay = self._try_capture(key, self._step_function(cache.view_with_batch_size(batch_size)))
            while len(self._replays) >= _MAX_GRAPHS:
                self._replays.pop(next(iter(self._replays)))
        self._replays[key] = replay
        cache.set_seq_length(cache_position + 1)
        return replay()[: len(tokens)]

    def clear(self) -> None:
        """Free all captured steps and their memory."""
        self._replays.clear()

    def _try_capture(self, key: tuple[int, ...], function: GraphFunction) -> GraphFunction:
        """Return a replay of `function`, or `function` itself, which is slower, if it cannot be captured."""
        if self.error is None:
            try:
                return self._capture(function)
            except Exception as error:
                logger.warning("no CUDA graph, computing eagerly", exc_info=error)
                if not is_out_of_memory(error):
                    self.error = f"{type(error).__name__}: {error}"[:200]
        self._uncaptured.add(key)
        return function

    def _step_function(self, cache: StaticEncoderDecoderCache) -> GraphFunction:
        rows = cache.batch_beam_size

        def compute_step() -> Tensor:
            logits = self._network.decode_step(self._tokens[:rows], self._cache_position, cache)
            return self._logits[:rows].copy_(logits)

        return compute_step


def _next_power_of_two(count: int, minimum: int = 1) -> int:
    """Return the smallest power of two that is at least `count` and `minimum`. `minimum` must be a power of two."""
    return max(minimum, 1 << (count - 1).bit_length())
