"""The engine `native`: generation with the networks, caches and search algorithms of this package."""

import ctypes
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from handlers.core.device import AMX, Device, has_any
from handlers.core.exception_handling import is_out_of_memory
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.cuda_graph import CudaGraphs
from handlers.engines.loading import load_network
from handlers.engines.seq2seq.bart import BART_VARIANTS, Bart
from handlers.engines.seq2seq.beam_search import run_beam_search
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.cuda_graph_decoder import CudaGraphDecoder
from handlers.engines.seq2seq.decode_attention import DecodeAttention
from handlers.engines.seq2seq.draft_lengths import StepTimes, measure_step_times
from handlers.engines.seq2seq.encoder_decoder import EncoderDecoder, encode_into_cache
from handlers.engines.seq2seq.generation_config import read_generation_config
from handlers.engines.seq2seq.generation_types import GeneratedTokens, GenerationBatch
from handlers.engines.seq2seq.greedy_search import run_greedy_search
from handlers.engines.seq2seq.linear import Int8Linear, Linear, LinearFactory
from handlers.engines.seq2seq.logits_processors import LogitsProcessors
from handlers.engines.seq2seq.ragged_cache import RaggedCache
from handlers.engines.seq2seq.speculative_search import run_speculative_search
from handlers.engines.seq2seq.step_kernels import load_step_kernels
from handlers.engines.seq2seq.step_linear import StepLinear, WeightBits
from handlers.engines.seq2seq.t5 import T5

logger = logging.getLogger(__name__)

NETWORKS: Mapping[str, Callable[[Any, LinearFactory, LinearFactory, torch.dtype], T5 | Bart]] = {
    "t5": T5,
    "mt5": T5,
    **dict.fromkeys(BART_VARIANTS, Bart),
}
"""The network of each supported model type."""


class NativeSeq2Seq:
    """An engine that generates the same tokens as transformers' `generate()`, for the supported model types."""

    name = "native"

    def __init__(
        self, int8: bool = False, max_batch_tokens: int = 16_384, prompt_lookup_num_tokens: int | None = None
    ) -> None:
        """Set the options.

        Args:
            int8: Compute linear layers in int8 and store the keys and values of sources in int8, on a CPU only. The
                other tensors have the type of the device, except for float32 activations in a compiled decoding step.
            max_batch_tokens: The largest batch: texts x (longest input + beams x longest output).
            prompt_lookup_num_tokens: The largest number of tokens that greedy search drafts from a text's source for
                one step, on a CPU only. None disables drafts.
        """
        self._int8, self._max_batch_tokens = int8, max_batch_tokens
        self._prompt_lookup_num_tokens = prompt_lookup_num_tokens

    def load(self, folder: Path, device: Device) -> None:
        """Load the weights.

        Raises:
            EngineUnavailable: The architecture or a setting of the generation config is not supported.
            ValueError: The weights do not fit the architecture.
            OSError: A file of the model is missing or unreadable.
        """
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model_type = config.model_type
        if model_type not in NETWORKS:
            *supported, last = sorted(NETWORKS)
            raise EngineUnavailable(
                f"the native engine supports {', '.join(supported)} and {last}, not {model_type}"
            )
        generation_config = read_generation_config(folder)
        output_vocab_size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
        self._processors = LogitsProcessors(generation_config, output_vocab_size, device.torch_device)
        kernels = _load_step_kernels(folder, device)
        encoder_dtype = device.dtype
        if kernels and not has_any(AMX):  # compiled steps were not measured with AMX
            device = replace(device, dtype=torch.float32)  # the activations of compiled steps
        model = load_network(AutoModelForSeq2SeqLM, folder, device.dtype).to(device.torch_device)
        linear, step_linear = self._choose_linear_layers(kernels, device, encoder_dtype)
        with torch.inference_mode():
            self._network = NETWORKS[model_type](model, linear, step_linear, encoder_dtype)
        self._architecture = type(model).__name__
        # False for a Marian with two vocabularies: the ids of its source are other words in the output.
        self._shares_vocabulary = bool(getattr(config, "share_encoder_decoder_embeddings", True))
        self._device = device.torch_device
        self._decode_attention = _create_decode_attention(kernels, self._network.shape.head_dim, self._int8)
        if self._decode_attention is None:  # torch's attention needs one type
            self._network.shape = self._network.shape._replace(dtype=device.dtype)
        self._decoder_layers = self._compile_decoder(kernels)
        self._graph_decoder: CudaGraphDecoder | None = None
        self._cuda_graph_status: str | None = None
        if self._device.type == "cuda":
            del model  # frees the weights that the network has copied
            self._create_graph_decoder()
        self._step_times: StepTimes | None = None
        if self._prompt_lookup_num_tokens and self._device.type == "cpu":
            with torch.inference_mode():
                self._step_times = measure_step_times(self._network, self._decode_attention)

    def run(self, batch: GenerationBatch) -> GeneratedTokens:
        """Return the new tokens of each text."""
        texts = [torch.tensor(text, dtype=torch.long, device=self._device) for text in batch.texts]
        num_beams = batch.parameters[0].num_beams
        max_cache_len = max(params.max_new_tokens for params in batch.parameters)
        search = run_greedy_search if num_beams == 1 else run_beam_search
        try:
            with torch.inference_mode():
                if num_beams == 1 and self._step_times:
                    return self._run_speculative_search(batch, texts, max_cache_len, self._step_times)
                network, cache = self._create_cache([len(text) for text in texts], num_beams, max_cache_len)
                encode_into_cache(network, cache, texts)
                return search(network, cache, self._processors, batch.parameters)
        except Exception as error:
            if self._graph_decoder and is_out_of_memory(error):
                self._graph_decoder.clear()
            raise

    def _run_speculative_search(
        self,
        batch: GenerationBatch,
        texts: Sequence[torch.Tensor],
        max_cache_len: int,
        step_times: StepTimes,
    ) -> GeneratedTokens:
        cache = RaggedCache(
            self._network.shape, [len(text) for text in texts], max_cache_len, self._decode_attention
        )
        encode_into_cache(self._network, cache, texts)
        lookup_texts = batch.texts if self._shares_vocabulary else [()] * len(texts)
        return run_speculative_search(
            *(self._network, cache, self._processors, batch.parameters, lookup_texts),
            *(self._prompt_lookup_num_tokens or 0, step_times),
        )

    @property
    def captures_steps(self) -> bool:
        """See `Seq2SeqEngine.captures_steps`."""
        return self._graph_decoder is not None and self._graph_decoder.error is None

    def describe(self) -> dict[str, Any]:
        """Return the engine, the architecture, and what computes attention and decoder steps."""
        precision = {"precision": "int8"} if self._int8 else {}
        attention = "compiled" if self._decode_attention else "torch"
        linear = {"step_linear": self._step_linear, "decoder_layers": self._decoder_layers}
        graphs = {"cuda_graphs": self._cuda_graph_status} if self._cuda_graph_status else {}
        drafts = {}
        if self._step_times:
            times = {
                name: {str(count): round(value, 2) for count, value in interpolated.measured.items()}
                for name, interpolated in (
                    ("rows", self._step_times.by_rows),
                    ("tokens", self._step_times.by_tokens),
                )
            }
            drafts = {
                "drafts": {
                    "prompt_lookup_num_tokens": self._prompt_lookup_num_tokens,
                    "relative_step_times": times,
                }
            }
        engine = {"engine": self.name, "architecture": self._architecture, "attention": attention}
        return engine | linear | precision | graphs | drafts

    def _choose_linear_layers(
        self, kernels: ctypes.CDLL | None, device: Device, encoder_dtype: torch.dtype
    ) -> tuple[LinearFactory, LinearFactory]:
        """Return the linear layers of the encoder, and of a decoding step."""
        self._step_linear = "torch"
        linear: LinearFactory = partial(Linear, dtype=encoder_dtype)
        bits: WeightBits = 16 if encoder_dtype == torch.bfloat16 else 32
        if self._int8:
            linear, bits = partial(Int8Linear, library=kernels), 8
        if kernels is None or device.dtype != torch.float32:
            return linear, linear
        self._step_linear = "compiled"
        return linear, partial(StepLinear, kernels, bits)

    def _compile_decoder(self, kernels: ctypes.CDLL | None) -> str:
        """Compute the layers of a decoding step in one call if possible, and return what computes them."""
        if kernels is None or self._decode_attention is None or self._step_linear == "torch":
            return "torch"
        try:
            self._network.compile_decoder(kernels)
        except EngineUnavailable as error:
            logger.info("the decoder's layers are computed one by one: %s", error)
            return "torch"
        return "compiled"

    def _create_graph_decoder(self) -> None:
        try:
            with torch.inference_mode():
                capture = CudaGraphs(self._device).capture_replay
                self._graph_decoder = CudaGraphDecoder(self._network, capture, 2 * self._max_batch_tokens)
            self._cuda_graph_status = "one for each shape of a step"
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("no CUDA graphs: no memory for their caches", exc_info=error)
            self._cuda_graph_status = "none: no memory for their caches"

    def _create_cache(
        self, source_lengths: Sequence[int], num_beams: int, max_cache_len: int
    ) -> tuple[EncoderDecoder, EncoderDecoderCache]:
        """Return a cache, and the network that computes steps with it: CUDA graphs if the batch fits, else eager."""
        if self._graph_decoder and self._graph_decoder.error:
            self._cuda_graph_status = f"none: {self._graph_decoder.error}"
            self._graph_decoder = None  # frees its memory
        static_cache = self._graph_decoder and self._graph_decoder.create_cache(
            source_lengths, num_beams, max_cache_len
        )
        if self._graph_decoder and static_cache:
            return self._graph_decoder, static_cache
        return self._network, EncoderDecoderCache(
            self._network.shape, source_lengths, num_beams, max_cache_len, self._decode_attention
        )


def _load_step_kernels(folder: Path, device: Device) -> ctypes.CDLL | None:
    """Return the compiled code for a CPU, or None if torch must compute. The log then contains the reason."""
    if device.torch_device.type != "cpu":
        return None
    try:
        return load_step_kernels(folder / PREPARED_DIR)
    except EngineUnavailable as error:
        logger.warning("no compiled decoding step: %s", error)
        return None


def _create_decode_attention(
    kernels: ctypes.CDLL | None, head_dim: int, int8_sources: bool
) -> DecodeAttention | None:
    """Return the compiled attention, or None if torch must compute attention. The log then contains the reason."""
    try:
        return None if kernels is None else DecodeAttention(kernels, head_dim, int8_sources)
    except EngineUnavailable as error:
        logger.warning("no compiled attention: %s", error)
        return None
