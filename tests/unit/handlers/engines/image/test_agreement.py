"""Agreement of labels in bf16 and int8 with fp32, on a thousand generated images and on photos."""

import json

import pytest
import torch

from handlers.core.device import FAST_BF16, has_any
from handlers.engines.image.openvino_classifier import OpenVinoClassifier
from handlers.engines.image.torch_classifier import TorchClassifier
from handlers.vision.preprocess import Preprocessor
from tests.real_models import labeled_photos
from tests.unit.handlers.classifiers import STARTER
from tests.unit.handlers.engines.image.conftest import BF16, CALIBRATION_IMAGES, FP32
from training.classifier import HELD_OUT_SEED, draw_all

LIMITS = (50_000_000, 2**24)
needs_bf16 = pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")


def labels(engine, folder, device, batch: torch.Tensor) -> torch.Tensor:
    engine.load(folder, device)
    return torch.cat([engine.run(part) for part in batch.split(8)]).argmax(1)


def test_calibrated_starter_agrees_with_fp32(calibrated):
    int8 = json.loads((calibrated / "prepared" / "prepared.json").read_text())["openvino"]["int8"]
    assert int8["agreement"] >= 0.98
    assert (int8["images"], int8["setting"]) == (CALIBRATION_IMAGES, "mixed")


@pytest.fixture(scope="module")
def thousand(calibrated):
    """The pixels of a thousand images that training and calibration did not use, and their labels in fp32 eager."""
    preprocessor = Preprocessor(STARTER)
    batch = torch.stack([preprocessor.read(data, *LIMITS) for data in draw_all(HELD_OUT_SEED, 1000)])
    return batch, labels(TorchClassifier(preprocessor.spec, 8), STARTER, FP32, batch)


@pytest.mark.parametrize(
    ("create", "device", "min_agreement"),
    [
        (lambda spec: TorchClassifier(spec, 8), BF16, 0.99),
        (OpenVinoClassifier, FP32, 1.0),
        pytest.param(OpenVinoClassifier, BF16, 0.99, marks=needs_bf16),
        (lambda spec: OpenVinoClassifier(spec, int8=True), BF16, 0.98),
    ],
    ids=["torch bf16", "openvino fp32", "openvino bf16", "openvino int8"],
)
@pytest.mark.slow
def test_predicted_labels_agree_on_a_thousand_images(thousand, calibrated, create, device, min_agreement):
    batch, expected = thousand
    predicted = labels(create(Preprocessor(calibrated).spec), calibrated, device, batch)
    assert float((predicted == expected).float().mean()) >= min_agreement


@pytest.fixture(scope="module")
def mobilenet(calibrated_mobilenet, shared_data):
    """Real ImageNet weights in fp32 and int8, the photos' pixels, and their labels in fp32 eager."""
    folder = calibrated_mobilenet
    preprocessor = Preprocessor(folder)
    photos = [path.read_bytes() for path, _ in labeled_photos(shared_data)]
    batch = torch.stack([preprocessor.read(photo, *LIMITS) for photo in photos])
    return (
        folder,
        preprocessor.spec,
        batch,
        labels(TorchClassifier(preprocessor.spec, 8), folder, FP32, batch),
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("int8", "device"),
    [(False, FP32), pytest.param(False, BF16, marks=needs_bf16), (True, BF16)],
    ids=["fp32", "bf16", "int8"],
)
def test_real_photos_keep_their_labels(mobilenet, int8, device):
    folder, spec, batch, expected = mobilenet
    assert len(batch) >= 10
    predicted = labels(OpenVinoClassifier(spec, int8=int8), folder, device, batch)
    assert predicted.tolist() == expected.tolist()
