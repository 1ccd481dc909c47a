"""Quantization to int8: no overflow on any CPU, and images that workers verify the network with."""

import numpy as np
import pytest

from handlers.engines.image.int8_agreement import INT8_GRAPH
from handlers.engines.image.openvino_classifier import convert, load_float_network
from handlers.engines.image.openvino_runtime import import_openvino
from handlers.engines.image.types import InputSpec
from tests.unit.handlers.classifiers import write_images
from torchserve_models.packing.engines import int8
from torchserve_models.packing.engines.classifier import prepare_classifier
from torchserve_models.packing.engines.int8 import (
    MAX_CHECK_BYTES,
    MAX_CHECK_IMAGES,
    QuantizedModel,
    select_check_images,
)

MAX_INT16 = 2**15 - 1
SPEC = InputSpec(64, 64, None)
IMAGE_BYTES = 224 * 224 * 3


def result(leads, wrong=()) -> QuantizedModel:
    """A model whose label is 0 with the given leads, and other labels in float32 for the images in `wrong`."""
    logits = np.array([[lead, 0.0] for lead in leads], np.float32)
    labels = np.array([index in wrong for index in range(len(leads))], np.int64)
    return QuantizedModel(None, "mixed", logits, labels)


def test_agreement_is_the_share_of_equal_labels():
    assert result([1, 2, 3, 4], wrong={1}).agreement == 0.75


def test_check_images_have_small_leads_but_not_the_smallest():
    leads = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    selected = select_check_images(result(leads, wrong={int(leads.argmin())}), IMAGE_BYTES)
    assert len(selected) == len(set(selected)) == MAX_CHECK_IMAGES
    assert 2 < leads[selected].min() < leads[selected].max() < 60


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (3, 3), (9, MAX_CHECK_IMAGES)])
def test_few_images_are_all_used(images, expected):
    assert len(select_check_images(result(range(1, images + 1)), IMAGE_BYTES)) == expected


def test_images_with_another_label_are_not_used():
    assert select_check_images(result([1, 2, 3], wrong={0, 2}), IMAGE_BYTES) == [1]
    assert select_check_images(result([1, 2], wrong={0, 1}), IMAGE_BYTES) == []


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_images_whose_label_could_change_by_rounding_are_not_used(scale):
    leads = np.array([0.001, 0.01, 2.0, 3.0], np.float32) * scale
    assert select_check_images(result(leads), IMAGE_BYTES) == [2, 3]
    assert select_check_images(result(leads * [1, 1, -1, -1], wrong={2, 3}), IMAGE_BYTES) == [2, 3]


def test_network_with_one_label_has_no_check_images():
    model = QuantizedModel(None, "mixed", np.ones((3, 1), np.float32), np.zeros(3, np.int64))
    assert select_check_images(model, IMAGE_BYTES) == []


def test_stored_bytes_are_limited():
    leads = result(range(1, 21))
    assert len(select_check_images(leads, MAX_CHECK_BYTES // 5)) == 5
    assert len(select_check_images(leads, 2 * MAX_CHECK_BYTES)) == 1


@pytest.mark.full
def test_products_of_weights_cannot_overflow(small, tmp_path):
    """CPUs without VNNI add pairs of products of uint8 activations and int8 weights in 16 bits, and saturate."""
    prepare_classifier(small, tmp_path / "target", images=write_images(tmp_path / "images", 1, 2))
    openvino = import_openvino()
    model = openvino.Core().read_model(tmp_path / "target" / INT8_GRAPH)
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    weights = [op.get_data() for op in constants if op.get_output_element_type(0) == openvino.Type.i8]
    assert len(weights) >= 3
    assert max(2 * 255 * int(np.abs(weight.astype(int)).max()) for weight in weights) <= MAX_INT16


@pytest.mark.full
def test_most_exact_setting_is_kept_if_none_agrees_enough(small, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "MIN_AGREEMENT", 1.1)
    graph = convert(load_float_network(small, SPEC), SPEC)
    images = [np.random.default_rng(i).normal(size=(1, 3, 64, 64)).astype(np.float32) for i in range(3)]
    quantized = int8.quantize(graph, images)
    monkeypatch.setattr(int8, "MIN_AGREEMENT", 0.0)
    assert quantized.error <= int8.quantize(graph, images).error
