"""Engine: sequence-to-sequence generation by our own loop, for T5 and BART."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from handlers.core.device import Device
from handlers.core.faults import is_out_of_memory
from handlers.engines.base import PREPARED, EngineUnavailable
from handlers.engines.cuda_graph import CudaGraphs
from handlers.engines.loading import load_network
from handlers.engines.seq2seq.bart import Bart
from handlers.engines.seq2seq.beams import beam_search
from handlers.engines.seq2seq.cache import Cache
from handlers.engines.seq2seq.cuda_graph_decoder import CudaGraphDecoder
from handlers.engines.seq2seq.greedy import greedy
from handlers.engines.seq2seq.linear import Int8Linear, Linear, MakeLayer
from handlers.engines.seq2seq.logits_processors import LogitsProcessors
from handlers.engines.seq2seq.network import Network, prefill
from handlers.engines.seq2seq.step_attention import StepAttention
from handlers.engines.seq2seq.t5 import T5
from handlers.text.generation import GeneratedTokens, GenerationBatch
from handlers.text.model_defaults import generation_config

logger = logging.getLogger(__name__)

_NETWORKS: dict[str, Callable[[Any, MakeLayer], Network]] = {"t5": T5, "mt5": T5, "bart": Bart}


class NativeSeq2Seq:
    """The same tokens as transformers' `generate()`, from networks of our own over its weights."""

    name = "native"

    def __init__(self, int8: bool = False, max_batch_tokens: int = 16_384) -> None:
        """`int8`: products with weights in int8, on a CPU alone; all else in the device's type.

        `max_batch_tokens`: of the batches that come, texts x (longest input + beams x longest output).
        """
        self._int8, self._max_batch_tokens = int8, max_batch_tokens

    def load(self, folder: Path, device: Device) -> None:
        """Raises EngineUnavailable for an architecture or a generation config that is not known here.

        Else ValueError for weights that do not fill the architecture, and what transformers raises.
        """
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = config.model_type
        if kind not in _NETWORKS:
            raise EngineUnavailable(
                f"it generates for {', '.join(sorted(_NETWORKS))}, and this model is {kind}"
            )
        self._processors = LogitsProcessors(generation_config(folder), config.vocab_size, device.torch_device)
        model = load_network(AutoModelForSeq2SeqLM, folder, device.dtype).to(device.torch_device)
        with torch.inference_mode():
            self._network = _NETWORKS[kind](model, Int8Linear if self._int8 else Linear)
        self._architecture = type(model).__name__
        self._device = device.torch_device
        self._attention = _step_attention(folder, device, self._network.shape.head_size)
        self._graph_decoder: CudaGraphDecoder | None = None
        self._graphs: str | None = None
        if self._device.type == "cuda":
            del model  # what networks have laid out anew is there twice else
            self._record()

    def run(self, batch: GenerationBatch) -> GeneratedTokens:
        texts = [torch.tensor(text, dtype=torch.long, device=self._device) for text in batch.texts]
        beams = batch.parameters[0].num_beams
        capacity = max(parameters.max_new_tokens for parameters in batch.parameters)
        search = greedy if beams == 1 else beam_search
        try:
            with torch.inference_mode():
                network, cache = self._network_and_cache([len(text) for text in texts], beams, capacity)
                prefill(network, cache, texts)
                return search(network, cache, self._processors, batch.parameters)
        except Exception as error:
            if self._graph_decoder and is_out_of_memory(error):
                self._graph_decoder.forget()
            raise

    def _record(self) -> None:
        try:
            with torch.inference_mode():
                record = CudaGraphs(self._device).replaying
                self._graph_decoder = CudaGraphDecoder(self._network, record, 2 * self._max_batch_tokens)
            self._graphs = "one for each shape of a step"
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("no CUDA graphs: no memory for their caches", exc_info=error)
            self._graphs = "none: no memory for their caches"

    def _network_and_cache(self, lengths: Sequence[int], beams: int, capacity: int) -> tuple[Network, Cache]:
        if self._graph_decoder and self._graph_decoder.problem:
            self._graphs = f"none: {self._graph_decoder.problem}"
            self._graph_decoder = None  # and its memory
        fixed = self._graph_decoder and self._graph_decoder.cache(lengths, beams, capacity)
        if self._graph_decoder and fixed:
            return self._graph_decoder, fixed
        return self._network, Cache(self._network.shape, lengths, beams, capacity, self._attention)

    def describe(self) -> dict[str, Any]:
        precision = {"precision": "int8"} if self._int8 else {}
        attention = "compiled" if self._attention else "torch"
        graphs = {"cuda_graphs": self._graphs} if self._graphs else {}
        engine = {"engine": self.name, "architecture": self._architecture, "attention": attention}
        return engine | precision | graphs


def _step_attention(folder: Path, device: Device, head_size: int) -> StepAttention | None:
    """What packing has compiled, where it is for this device; None leaves it to torch, and the log says why."""
    if device.torch_device.type != "cpu" or device.dtype != torch.bfloat16:
        return None
    try:
        return StepAttention(folder / PREPARED, head_size)
    except EngineUnavailable as error:
        logger.warning("no compiled attention: %s", error)
        return None
