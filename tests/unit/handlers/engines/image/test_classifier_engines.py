"""The image classification engines: logits equal to transformers, and unavailable engines."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageClassification

from handlers.core.device import FAST_BF16, Device, cpu_flags, has_any
from handlers.engines.base import PREPARED_DIR, EngineUnavailable
from handlers.engines.image import torch_compiled_classifier
from handlers.engines.image.openvino_classifier import OpenVinoClassifier
from handlers.engines.image.torch_classifier import TorchClassifier
from handlers.engines.image.torch_compiled_classifier import (
    MAX_BATCH,
    PACKAGE,
    REQUIREMENTS,
    TorchCompiledClassifier,
)
from handlers.vision.preprocess import Preprocessor
from tests.conftest import ROOT
from tests.tools import needs
from tests.unit.handlers.engines.image.conftest import BF16, FP32, NORMALIZATION, SMALL, SPEC, levels
from torchserve_models.packing.engines.classifier import prepare_classifier
from torchserve_models.packing.engines.torch_compiled import compile_package
from training.images import draw_image

needs_bf16 = pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")
needs_compiler = needs("g++")


def reference(folder, batch: torch.Tensor) -> torch.Tensor:
    """Return the logits of transformers for pixels that are normalized by the formula."""
    network = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    mean, std = (torch.tensor(values) for values in NORMALIZATION[1:])
    pixels = ((batch * NORMALIZATION.scale - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network(pixels).logits


@pytest.fixture(scope="module", params=["starter", "small"])
def model(request):
    spec = SPEC if request.param == "starter" else SMALL
    folder = request.getfixturevalue("calibrated" if request.param == "starter" else "small")
    batch = levels(spec, 5)
    return folder, spec, batch, reference(folder, batch)


@pytest.mark.parametrize(
    ("make", "device", "tolerance"),
    [
        (lambda spec: TorchClassifier(spec, 8), FP32, 1e-4),
        (lambda spec: TorchClassifier(spec, 8), BF16, 0.05),
        (OpenVinoClassifier, FP32, 1e-4),
        pytest.param(OpenVinoClassifier, BF16, 0.05, marks=needs_bf16),
    ],
    ids=["torch fp32", "torch bf16", "openvino fp32", "openvino bf16"],
)
@pytest.mark.full
def test_logits_equal_those_of_transformers(model, make, device, tolerance):
    """`tolerance` is in standard deviations of all logits."""
    folder, spec, batch, expected = model
    engine = make(spec)
    engine.load(folder, device)
    logits = engine.run(batch)
    assert (logits.dtype, logits.device.type) == (torch.float32, "cpu")
    spread = float(expected.std())
    assert float((logits - expected).abs().max()) <= tolerance * spread
    alone = torch.cat([engine.run(batch[row : row + 1]) for row in range(len(batch))])
    assert float((alone - logits).abs().max()) <= tolerance * spread
    assert engine.describe()["precision"] == device.precision


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory):
    """A small EfficientNet whose last pooling window is 320 x 320. Published models have at least 1280 x 1280."""
    from transformers import (
        EfficientNetConfig,
        EfficientNetForImageClassification,
        EfficientNetImageProcessor,
    )

    folder = tmp_path_factory.mktemp("efficientnet") / "model"
    torch.manual_seed(0)
    config = EfficientNetConfig(
        image_size=64,
        hidden_dim=320,
        width_coefficient=0.25,
        depth_coefficient=0.2,
        num_labels=7,
        # The first two of the seven stages, as the conversion of each takes half a second.
        kernel_sizes=[3, 5],
        in_channels=[32, 16],
        out_channels=[16, 24],
        strides=[1, 2],
        num_block_repeats=[1, 1],
        expand_ratios=[1, 6],
    )
    network = EfficientNetForImageClassification(config)
    for weights in network.parameters():
        if weights.ndim > 1:  # else the outputs are all 0
            torch.nn.init.kaiming_normal_(weights)
    network.save_pretrained(folder)
    EfficientNetImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.full
def test_converted_efficientnet_has_the_same_logits(efficientnet, tmp_path):
    facts = prepare_classifier(efficientnet, tmp_path / "prepared")
    assert "none" not in facts["openvino"]
    spec = Preprocessor(efficientnet).spec._replace(normalization=None)
    pixels = torch.rand(3, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(1))
    outputs = []
    for engine in (TorchClassifier(spec, 4), OpenVinoClassifier(spec)):
        engine.load(efficientnet, FP32)
        outputs.append(engine.run(pixels))
    assert outputs[0].std() > 0
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-4, rtol=1e-3)


def test_int8_logits_are_close_to_fp32(calibrated):
    """The tolerance is twice the error measured on generated images that calibration did not use."""
    preprocessor = Preprocessor(calibrated)
    batch = torch.stack([preprocessor.read(draw_image(6, index)[1], 10**8, 10**8) for index in range(3)])
    engine = OpenVinoClassifier(SPEC, int8=True)
    engine.load(calibrated, FP32)
    logits, expected = engine.run(batch), reference(calibrated, batch)
    assert float((logits - expected).abs().max()) < 0.47 * float(expected.std())
    assert torch.allclose(engine.run(batch[:1]), logits[:1], atol=1e-4)
    assert engine.describe() == {"engine": "openvino", "precision": "int8", "network": "archive"}


@pytest.mark.full
def test_single_image_uses_separate_threads_and_equals_the_batch(converted):
    engine, batch = OpenVinoClassifier(SMALL), levels(SMALL, 3)
    engine.load(converted, replace(FP32, threads=1, single_item_threads=2))
    threads = {
        request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
        for request in (engine._single_image_request, engine._request)
    }
    assert threads == {1, 2}
    assert torch.allclose(engine.run(batch[:1]), engine.run(batch)[:1], atol=1e-5)


@pytest.mark.parametrize("make", [lambda spec: TorchClassifier(spec, 8), OpenVinoClassifier])
def test_normalized_pixels_are_not_normalized_again(converted, make):
    ready = SMALL._replace(normalization=None)
    batch = levels(SMALL, 2)
    mean, std = (torch.tensor(values) for values in NORMALIZATION[1:])
    engine = make(ready)
    engine.load(converted, FP32)
    logits = engine.run(((batch * NORMALIZATION.scale - mean) / std).permute(0, 3, 1, 2))
    assert torch.allclose(logits, reference(converted, batch), atol=1e-4)


def test_logits_are_not_overwritten_by_the_next_batch(converted):
    engine = OpenVinoClassifier(SMALL)
    engine.load(converted, FP32)
    batch = levels(SMALL, 2)
    first = engine.run(batch[:1])
    copy = first.clone()
    engine.run(batch[1:])
    assert torch.equal(first, copy)


def test_openvino_is_unavailable_on_a_gpu(small):
    with pytest.raises(EngineUnavailable, match="supports only CPUs"):
        OpenVinoClassifier(SMALL).load(small, Device(torch.device("cuda:0"), torch.float32, 1))


@pytest.fixture(scope="module")
def compiled(small, tmp_path_factory):
    """The small network with a package for this CPU, which takes about ten seconds."""
    folder = tmp_path_factory.mktemp("compiled") / "model"
    shutil.copytree(small, folder)
    (folder / PREPARED_DIR).mkdir()
    compile_package(folder, SMALL, FP32, folder / PREPARED_DIR)
    return folder


@needs_compiler
@pytest.mark.slow
def test_compiled_package_has_the_same_logits(compiled):
    engine = TorchCompiledClassifier(SMALL, 8)
    engine.load(compiled, FP32)
    batch = levels(SMALL, 5)
    expected = reference(compiled, batch)
    for count in (1, 2, 5):
        assert torch.allclose(engine.run(batch[:count]), expected[:count], atol=1e-4)
    assert engine.describe() == {"engine": "torch-compiled", "precision": "fp32"}


@needs_compiler
@pytest.mark.slow
def test_compiled_package_for_another_worker_is_unavailable(compiled, monkeypatch):
    def unavailable_reason(device=FP32):
        with pytest.raises(EngineUnavailable) as error:
            TorchCompiledClassifier(SMALL, 8).load(compiled, device)
        return str(error.value)

    assert (
        unavailable_reason(BF16) == "the compiled network has precision fp32, not bf16; pack the model again"
    )
    flags = cpu_flags() - {"avx2", "fma"}
    with monkeypatch.context() as patch:
        patch.setattr(torch_compiled_classifier, "cpu_flags", lambda: flags)
        assert (
            unavailable_reason()
            == "the compiled network requires CPU features that this CPU lacks: avx2, fma"
        )
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert "not 1.0" in unavailable_reason()


def test_compiled_engine_is_unavailable_for_larger_batches(small):
    with pytest.raises(EngineUnavailable, match=f"at most {MAX_BATCH} images at once"):
        TorchCompiledClassifier(SMALL, MAX_BATCH + 1).load(small, FP32)


def test_compiled_engine_is_unavailable_without_a_package(small):
    with pytest.raises(EngineUnavailable, match=r"pack it with handler\.engine: torch-compiled"):
        TorchCompiledClassifier(SMALL, 8).load(small, FP32)
    assert not (small / PREPARED_DIR / PACKAGE).exists()
    assert not (small / PREPARED_DIR / REQUIREMENTS).exists()


def test_openvino_worker_imports_no_transformers_and_no_telemetry(calibrated, tmp_path):
    """transformers takes a second and 100 MB. The telemetry of OpenVINO and NNCF must not start."""
    (tmp_path / "model").symlink_to(calibrated)
    code = """
import sys
from pathlib import Path
from handlers.image_classifier import ImageClassifier
from tests.unit.handlers.context import FakeContext
handler = ImageClassifier()
handler.initialize(FakeContext(Path(sys.argv[1]), {"handler": {"engine": "openvino"}}))
print(sorted({"transformers", "nncf", "openvino_telemetry.main"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "[]\n"
    assert done.stderr == ""
    assert not (tmp_path / "intel").exists()


SIGNALED = """
import signal, sys
from pathlib import Path
from handlers.engines.image.openvino_classifier import OpenVinoClassifier
from tests.unit.handlers.engines.image.conftest import FP32, SMALL

def engine():
    created = OpenVinoClassifier(SMALL)
    created.load(Path(sys.argv[1]), FP32)
    return created

first, second = engine(), engine()
if sys.argv[2] == "unload":
    second.unload()
    first.unload()
else:
    del first
    del second
signal.signal(signal.SIGTERM, lambda *_: print("still here"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("how", ["delete", "unload"])
@pytest.mark.slow
def test_signal_after_freeing_networks_does_not_crash_the_process(small, how):
    """OpenVINO leaves a freed signal stack if networks are not freed in reverse order."""
    command = [sys.executable, "-c", SIGNALED, small, how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr
