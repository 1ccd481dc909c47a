"""How many images keep their label in bf16 and int8: a thousand drawn ones, and real photos."""

import shutil

import pytest
import torch
from PIL import Image

from handlers.core.device import has_any
from handlers.engines.base import PREPARED
from handlers.engines.choice import FAST_BF16
from handlers.engines.openvino_classifier import OpenVinoClassifier
from handlers.engines.prepare import prepare_classifier
from handlers.engines.torch_classifier import TorchClassifier
from handlers.vision.preprocess import Preprocessor
from tests.real_models import labeled_photos, mobilenet_folder
from tests.unit.handlers.engines.conftest import BF16, FP32, STARTER
from training.classifier import HELD_OUT_SEED, draw_all

LIMITS = (50_000_000, 2**24)
needs_bf16 = pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")


def labels(engine, folder, device, batch: torch.Tensor) -> torch.Tensor:
    engine.load(folder, device)
    return torch.cat([engine.run(part) for part in batch.split(8)]).argmax(1)


@pytest.fixture(scope="module")
def thousand(calibrated):
    """A thousand images that neither training nor calibration saw, as pixels, and their labels in fp32 eager."""
    preprocessor = Preprocessor(STARTER)
    batch = torch.stack([preprocessor.read(data, *LIMITS) for data in draw_all(HELD_OUT_SEED, 1000)])
    return batch, labels(TorchClassifier(preprocessor.spec, 8), STARTER, FP32, batch)


@pytest.mark.parametrize(
    ("make", "device", "least"),
    [
        (lambda spec: TorchClassifier(spec, 8), BF16, 0.99),
        (OpenVinoClassifier, FP32, 1.0),
        pytest.param(OpenVinoClassifier, BF16, 0.99, marks=needs_bf16),
        (lambda spec: OpenVinoClassifier(spec, int8=True), BF16, 0.98),
    ],
    ids=["torch bf16", "openvino fp32", "openvino bf16", "openvino int8"],
)
@pytest.mark.full
def test_agreement_on_a_thousand_images(thousand, calibrated, make, device, least):
    batch, expected = thousand
    found = labels(make(Preprocessor(calibrated).spec), calibrated, device, batch)
    assert float((found == expected).float().mean()) >= least


@pytest.fixture(scope="module")
def mobilenet(shared_data, tmp_path_factory):
    """Real ImageNet weights in fp32 and int8, the photos' pixels, and their labels in fp32 eager.

    Calibrated with parts of photos that have no label and are large enough to be like what is classified.
    """
    source = mobilenet_folder(shared_data, tmp_path_factory.mktemp("source"))
    labeled = {path for path, _ in labeled_photos(shared_data)}
    tiles = tmp_path_factory.mktemp("tiles")
    for path in sorted((shared_data / "photos").glob("pil_*.[jmw]*")):
        if path not in labeled and "truncated" not in path.name:
            write_tiles(path, tiles)
    folder = tmp_path_factory.mktemp("mobilenet") / "model"
    shutil.copytree(source, folder)
    prepare_classifier(source, folder / PREPARED, images=sorted(tiles.iterdir()))
    preprocessor = Preprocessor(folder)
    photos = [path.read_bytes() for path, _ in labeled_photos(shared_data)]
    batch = torch.stack([preprocessor.read(photo, *LIMITS) for photo in photos])
    return (
        folder,
        preprocessor.spec,
        batch,
        labels(TorchClassifier(preprocessor.spec, 8), source, FP32, batch),
    )


def write_tiles(path, folder) -> None:
    """Sixteen overlapping parts of one photo."""
    with Image.open(path) as photo:
        photo = photo.convert("RGB")
    side = min(photo.size) * 3 // 4
    for row in range(4):
        for column in range(4):
            left, top = (photo.width - side) * column // 3, (photo.height - side) * row // 3
            tile = photo.crop((left, top, left + side, top + side))
            tile.save(folder / f"{path.name}-{row}{column}.png")


@pytest.mark.parametrize(
    ("int8", "device"),
    [(False, FP32), pytest.param(False, BF16, marks=needs_bf16), (True, BF16)],
    ids=["fp32", "bf16", "int8"],
)
def test_real_photos_keep_their_labels(mobilenet, int8, device):
    folder, spec, batch, expected = mobilenet
    assert len(batch) >= 10
    found = labels(OpenVinoClassifier(spec, int8=int8), folder, device, batch)
    assert found.tolist() == expected.tolist()
