"""The layers of a decoding step in one call of compiled code."""

import ctypes
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from handlers.core.device import Device
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.seq2seq.cache import EncoderDecoderCache
from handlers.engines.seq2seq.decode_attention import DecodeAttention
from handlers.engines.seq2seq.encoder_decoder import encode_into_cache
from handlers.engines.seq2seq.linear import Int8Linear, Linear
from handlers.engines.seq2seq.native_seq2seq import NETWORKS, NativeSeq2Seq
from handlers.engines.seq2seq.ragged_cache import RaggedCache
from handlers.engines.seq2seq.step_linear import StepLinear

SIZES = {"vocab_size": 50, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
T5_SIZES = SIZES | {"d_model": 40, "d_kv": 32, "d_ff": 70, "num_layers": 2, "num_heads": 3}
BART_SIZES = SIZES | {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 90,
    "max_position_embeddings": 32,
    "forced_eos_token_id": 1,
}
MODELS: dict[str, Any] = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**BART_SIZES)),
    "marian": lambda: MarianMTModel(MarianConfig(**BART_SIZES, activation_function="relu")),
    "pegasus": lambda: PegasusForConditionalGeneration(PegasusConfig(**BART_SIZES)),
}
UNSUPPORTED: dict[str, Any] = {
    "gated": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, feed_forward_proj="gated-gelu")),
    "silu": lambda: T5ForConditionalGeneration(T5Config(**T5_SIZES, feed_forward_proj="silu")),
    "swish": lambda: MarianMTModel(MarianConfig(**BART_SIZES, activation_function="swish")),
}

PRECISIONS = [(32, torch.float32), (16, torch.bfloat16), (8, torch.float32), (8, torch.bfloat16)]
"""The bits of the decoder's weights, and the type of the encoder, keys and values."""


@cache
def create_model(name: str) -> Any:
    """Return a model whose weights all have an effect that a test can see."""
    torch.manual_seed(2)
    model = MODELS[name]()
    for key, weights in model.named_parameters():
        if weights.requires_grad:
            torch.nn.init.normal_(weights, mean=float("norm" in key and key.endswith("weight")), std=0.2)
    return model


def copy_model(name: str) -> Any:
    """Return a copy, because the network of BART changes the model's weights."""
    model = MODELS[name]()
    model.load_state_dict(create_model(name).state_dict())
    return model


def compare_logits(kernels: ctypes.CDLL, bits: int, dtype: torch.dtype, *results: list[Tensor]) -> None:
    """Compare the logits of each step.

    If rows, keys or values are rounded, a difference in the last bit of a number can change its rounding.
    """
    is_rounded = dtype == torch.bfloat16 or kernels.step_linear_group_size(bits) > 1
    for expected, result in zip(*results, strict=True):
        tolerance = 0.03 * float(expected.abs().max()) if is_rounded else 2e-4
        torch.testing.assert_close(result, expected, atol=tolerance, rtol=1e-4)


def create_network(name: str, kernels: ctypes.CDLL, bits: Any, dtype: torch.dtype) -> Any:
    """Return the network with compiled linear layers in the decoder, and an encoder and caches of type `dtype`."""
    model = copy_model(name)
    linear, step_linear = partial(Linear, dtype=dtype), partial(StepLinear, kernels, bits)
    return NETWORKS[model.config.model_type](model, linear, step_linear, dtype)


def check_logits_and_cache(
    kernels: ctypes.CDLL,
    name: str,
    precision: tuple[Any, torch.dtype],
    lengths: list[int],
    beams: int,
    seed: int,
) -> None:
    """Compare four steps, between which beams are reordered and a text is removed, with single operations."""
    bits, dtype = precision
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(2, 50, (length,), generator=generator) for length in lengths]
    tokens = torch.randint(2, 50, (4, len(texts) * beams), generator=generator)
    results = []
    for is_compiled in (False, True):
        with torch.inference_mode():
            network = create_network(name, kernels, bits, dtype)
            if is_compiled:
                network.compile_decoder(kernels)
            attention = DecodeAttention(kernels, network.shape.head_dim, int8_sources=bits == 8)
            cache = EncoderDecoderCache(network.shape, lengths, beams, 6, attention)
            encode_into_cache(network, cache, texts)
            logits = []
            for position, step_tokens in enumerate(tokens):
                if position == 3 and cache.batch_size > 1:
                    cache.remove_sequence(0)
                logits.append(network.decode_step(step_tokens[: cache.batch_beam_size], position, cache))
                cache.reorder_cache(torch.arange(cache.batch_beam_size).flip(0), 0)
        results.append(logits)
    compare_logits(kernels, bits, dtype, *results)


@pytest.mark.full
@settings(max_examples=24, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(MODELS)),
    precision=st.sampled_from(PRECISIONS),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    beams=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_logits_and_cache_equal_those_of_single_operations(
    kernels: ctypes.CDLL,
    name: str,
    precision: tuple[Any, torch.dtype],
    lengths: list[int],
    beams: int,
    seed: int,
) -> None:
    check_logits_and_cache(kernels, name, precision, lengths, beams, seed)


@pytest.mark.parametrize(
    ("name", "precision", "lengths", "beams"),
    [
        ("t5", (32, torch.float32), [7, 20, 1], 1),
        ("t5", (8, torch.float32), [3, 5], 4),
        ("t5", (8, torch.bfloat16), [8, 3], 4),
        ("bart", (8, torch.float32), [12], 1),
        ("bart", (16, torch.bfloat16), [6, 17], 4),
        ("pegasus", (32, torch.float32), [9, 4], 3),
    ],
)
def test_logits_and_cache_of_some_batches_equal_those_of_single_operations(
    kernels: ctypes.CDLL, name: str, precision: tuple[Any, torch.dtype], lengths: list[int], beams: int
) -> None:
    check_logits_and_cache(kernels, name, precision, lengths, beams, seed=1)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["t5", "bart"]),
    precision=st.sampled_from(PRECISIONS),
    steps=st.lists(st.lists(st.integers(1, 4), min_size=3, max_size=3), min_size=2, max_size=4),
)
def test_texts_have_any_number_of_tokens_in_a_step(
    kernels: ctypes.CDLL, name: str, precision: tuple[Any, torch.dtype], steps: list[list[int]]
) -> None:
    bits, dtype = precision
    generator = torch.Generator().manual_seed(1)
    lengths = [5, 12, 1]
    texts = [torch.randint(2, 50, (length,), generator=generator) for length in lengths]
    tokens = [torch.randint(2, 50, (sum(counts),), generator=generator) for counts in steps]
    results = []
    for is_compiled in (False, True):
        with torch.inference_mode():
            network = create_network(name, kernels, bits, dtype)
            if is_compiled:
                network.compile_decoder(kernels)
            attention = None
            if is_compiled or (bits, dtype) != (32, torch.float32):
                attention = DecodeAttention(kernels, network.shape.head_dim, int8_sources=bits == 8)
            cache = RaggedCache(network.shape, lengths, 16, attention)
            encode_into_cache(network, cache, texts)
            positions, logits = [0, 0, 0], []
            for counts, step_tokens in zip(steps, tokens, strict=True):
                cache_position = cache.start_step(positions, counts)
                logits.append(network.decode_step(step_tokens, cache_position, cache))
                # The last of several tokens is rejected.
                positions = [
                    first + max(1, count - 1) for first, count in zip(positions, counts, strict=True)
                ]
        results.append(logits)
    compare_logits(kernels, bits, dtype, *results)


@pytest.mark.parametrize("name", [*MODELS, *UNSUPPORTED])
def test_encoder_in_bf16_is_close_to_one_in_float32(kernels: ctypes.CDLL, name: str) -> None:
    torch.manual_seed(1)
    logits = []
    with torch.inference_mode():
        state = (create_model(name) if name in MODELS else UNSUPPORTED[name]()).state_dict()
        linear, step_linear = partial(Int8Linear, library=kernels), partial(StepLinear, kernels, 8)
        for dtype in (torch.float32, torch.bfloat16):
            model = (MODELS | UNSUPPORTED)[name]()
            model.load_state_dict(state)
            network = NETWORKS[model.config.model_type](model, linear, step_linear, dtype)
            attention = DecodeAttention(kernels, network.shape.head_dim, int8_sources=True)
            cache = EncoderDecoderCache(network.shape, [7, 3], 1, 2, attention)
            encode_into_cache(network, cache, [torch.arange(2, 9), torch.arange(10, 13)])
            logits.append(network.decode_step(torch.tensor([4, 5]), 0, cache))
    assert logits[1].dtype == torch.float32
    assert not logits[1].equal(logits[0])
    assert (logits[1] - logits[0]).norm() < 0.25 * logits[0].norm()  # unrelated logits: about 1.4


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_other_activation_functions_are_computed_by_torch(
    name: str, compiled_step: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    UNSUPPORTED[name]().save_pretrained(tmp_path)
    (tmp_path / PREPARED_DIR).symlink_to(compiled_step)
    engine = NativeSeq2Seq()
    engine.load(tmp_path, Device(torch.device("cpu"), torch.float32, 1))
    assert engine.describe()["step_linear"] == "compiled"
    assert engine.describe()["decoder_layers"] == "torch"


def test_layers_that_are_not_compiled_are_rejected(kernels: ctypes.CDLL) -> None:
    with torch.inference_mode():
        network = NETWORKS["bart"](copy_model("bart"), Linear, Linear, torch.float32)
    with pytest.raises(EngineUnavailable, match="the linear layers are not compiled"):
        network.compile_decoder(kernels)
