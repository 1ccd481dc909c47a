"""A decoder's steps recorded once for each of few shapes and replayed, as a GPU's graphs need them.

What is recorded knows addresses and shapes alone. So all that a step reads lies in memory that stays, as wide as the
batch can get; what is beyond a row's newest step or a text's end is hidden by masks.
"""

import logging
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from handlers.core.faults import is_out_of_memory
from handlers.engines.cuda_graph import Work
from handlers.engines.seq2seq.cache import MAX_STEPS, Cache, mask_beyond
from handlers.engines.seq2seq.network import Network
from handlers.text.batching import MAX_ROWS

_MIN_BUCKET = 32  # tokens or steps: no shape is smaller
_MAX_GRAPHS = 64  # shapes, those used last

Record = Callable[[Work], Work]
"""Work to what does it again, in the same memory."""

logger = logging.getLogger(__name__)


class StaticCache(Cache):
    """A cache in memory that is lent."""

    def __init__(self, self_kv: Tensor, cross_kv: Tensor, mask: Tensor, lengths: Sequence[int]) -> None:
        """Memory of `Cache`'s shapes for at least as many texts as there are `lengths`."""
        self._self_kv, self._cross_kv, self._mask = self_kv, cross_kv, mask
        self.texts, self.beams, self.compiled = len(lengths), self_kv.shape[2] // cross_kv.shape[2], None
        self.lengths = torch.tensor(lengths)
        self._filled = 0
        for each in (self_kv, cross_kv, mask):
            each.zero_()  # what an earlier batch has left may be no number, which a mask does not hide
        mask[: self.texts] = mask_beyond(self.lengths, mask.shape[-1], mask.dtype).to(mask.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Beams, and how many source tokens and steps it is for."""
        return self.beams, self._cross_kv.shape[4], self._self_kv.shape[4]

    def fixed(self, texts: int) -> "StaticCache":
        """The same memory, always with as many texts."""
        view = copy(self)
        view.texts = texts
        return view

    def causal_mask(self, position: int | Tensor) -> Tensor:
        """Added to the scores over own steps: 0 up to `position`, minus infinity after it. [1, 1, 1, steps]"""
        positions = torch.arange(self._self_kv.shape[4], device=self._self_kv.device)
        seen = torch.zeros(len(positions), dtype=self._self_kv.dtype, device=self._self_kv.device)
        return seen.masked_fill_(positions > position, float("-inf"))[None, None, None]

    def append(self, layer: int, position: int | Tensor, keys_values: Tensor) -> Tensor:
        """Put in a step's [rows, 2, heads, head size]; all there is room for: [2, rows, heads, steps, head size]."""
        self_kv = self._self_kv[layer, :, : self.rows]
        place = torch.as_tensor(position, device=self_kv.device).view(1)
        self_kv.index_copy_(3, place, keys_values.transpose(0, 1)[:, :, :, None])
        return self_kv

    def advance(self, position: int) -> None:
        """Says what a replayed step has filled."""
        self._filled = position + 1


class CudaGraphDecoder:
    """A `Network` whose steps are recorded. Its caches share their memory: a new one ends the last.

    `problem` says why nothing can be recorded; steps are then computed as they come.
    """

    def __init__(self, network: Network, record: Record, pool_size: int) -> None:
        """`places`: what the memory is for, texts x (source tokens + beams x steps)."""
        layers, heads, size, dtype, device = self.shape = network.shape
        self.vocabulary, self.encode = network.vocabulary, network.encode
        self._network, self._record, self._pool_size = network, record, pool_size
        self.problem: str | None = None
        self._runs: dict[tuple[int, ...], Work] = {}
        self._not_recorded: set[tuple[int, ...]] = set()
        self._keys_values = torch.empty(pool_size * 2 * layers * heads * size, dtype=dtype, device=device)
        self._mask = torch.empty(pool_size, dtype=dtype, device=device)
        self._tokens = torch.zeros(MAX_ROWS, dtype=torch.long, device=device)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        # One for all shapes: each recorded step would else hold its own.
        self._logits = torch.empty(MAX_ROWS, self.vocabulary, device=device)

    def cache(self, lengths: Sequence[int], beams: int, capacity: int) -> StaticCache | None:
        """As `Cache`; None for what is too large to be recorded."""
        for key in self._not_recorded:  # for want of memory, which may be there now
            self._runs.pop(key, None)
        self._not_recorded.clear()
        source_length, steps = _next(max(lengths), _MIN_BUCKET), _next(capacity, _MIN_BUCKET)
        max_texts = min(self._pool_size // (source_length + beams * steps), MAX_ROWS // beams)
        if _next(len(lengths)) > max_texts or capacity > MAX_STEPS:
            return None
        texts = _next(len(lengths))
        layers, heads, size, *_ = self.shape

        def pool_view(first: int, rows: int, room: int, used: int) -> Tensor:
            """[layers, 2, `used` of `rows`, heads, room, size]: where a row lies does not depend on `used`."""
            row = layers * 2 * heads * room * size
            part = self._keys_values[first : first + rows * row]
            return part.view(rows, layers, 2, heads, room, size)[:used].permute(1, 2, 0, 3, 4, 5)

        first_source = max_texts * beams * steps * layers * 2 * heads * size
        return StaticCache(
            pool_view(0, max_texts * beams, steps, texts * beams),
            pool_view(first_source, max_texts, source_length, texts),
            self._mask[: texts * source_length].view(texts, 1, 1, source_length),
            lengths,
        )

    def step(self, tokens: Tensor, position: int | Tensor, cache: Cache) -> Tensor:
        """As `Network`; the next step overwrites the logits."""
        assert isinstance(cache, StaticCache)
        assert isinstance(position, int)
        self._tokens[: len(tokens)] = tokens
        self._position.fill_(position)
        texts = _next(cache.texts)
        key = (texts, *cache.shape)
        run = self._runs.pop(key, None)
        if run is None:
            run = self._recorded(key, self._work(cache.fixed(texts)))
            while len(self._runs) >= _MAX_GRAPHS:
                self._runs.pop(next(iter(self._runs)))
        self._runs[key] = run
        cache.advance(position)
        return run()[: len(tokens)]

    def forget(self) -> None:
        """Give up all that is recorded, and the memory it holds."""
        self._runs.clear()

    def _recorded(self, key: tuple[int, ...], work: Work) -> Work:
        """What cannot be recorded is slower, not wrong."""
        if self.problem is None:
            try:
                return self._record(work)
            except Exception as error:
                logger.warning("no CUDA graph, computing eagerly", exc_info=error)
                if not is_out_of_memory(error):
                    self.problem = f"{type(error).__name__}: {error}"[:200]
        self._not_recorded.add(key)
        return work

    def _work(self, cache: StaticCache) -> Work:
        def work() -> Tensor:
            logits = self._network.step(self._tokens[: cache.rows], self._position, cache)
            return self._logits[: cache.rows].copy_(logits)

        return work


def _next(count: int, minimum: int = 1) -> int:
    """The next power of two, at least `least`."""
    return max(minimum, 1 << (count - 1).bit_length())
