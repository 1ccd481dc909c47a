"""Every engine gives the numbers of transformers in fp32, for one image as for a batch."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageClassification

from handlers.core.device import Device, cpu_flags, has_any
from handlers.engines import torch_compiled_classifier
from handlers.engines.base import PREPARED, EngineUnavailable
from handlers.engines.choice import FAST_BF16
from handlers.engines.openvino_classifier import OpenVinoClassifier
from handlers.engines.prepare import prepare_classifier
from handlers.engines.torch_classifier import TorchClassifier
from handlers.engines.torch_compiled_classifier import (
    MADE_FOR,
    MAX_BATCH,
    PACKAGE,
    TorchCompiledClassifier,
    compile_package,
)
from handlers.vision.preprocess import Preprocessor
from tests.conftest import ROOT
from tests.tools import needs
from tests.unit.handlers.engines.conftest import BF16, FP32, NORMALIZATION, SMALL, SPEC, levels
from training.images import draw_image

needs_bf16 = pytest.mark.skipif(not has_any(FAST_BF16), reason="this CPU has no bf16")
needs_compiler = needs("g++")


def reference(folder, batch: torch.Tensor) -> torch.Tensor:
    """Normalized as the formula says, without any engine."""
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
def test_logits_are_those_of_transformers(model, make, device, tolerance):
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
    """A small one whose last pooling has a window of 320 x 320; the published ones have 1280 x 1280 and more."""
    from transformers import (
        EfficientNetConfig,
        EfficientNetForImageClassification,
        EfficientNetImageProcessor,
    )

    folder = tmp_path_factory.mktemp("efficientnet") / "model"
    torch.manual_seed(0)
    config = EfficientNetConfig(
        image_size=64, hidden_dim=320, width_coefficient=0.25, depth_coefficient=0.2, num_labels=7
    )
    network = EfficientNetForImageClassification(config)
    for weights in network.parameters():
        if weights.ndim > 1:  # else the outputs are all 0
            torch.nn.init.kaiming_normal_(weights)
    network.save_pretrained(folder)
    EfficientNetImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.full
def test_efficientnet_is_converted_and_gives_the_same_numbers(efficientnet, tmp_path):
    """Case 24."""
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


def test_int8_is_near(calibrated):
    """Twice what was measured on drawn images that calibration did not see."""
    preprocessor = Preprocessor(calibrated)
    batch = torch.stack([preprocessor.read(draw_image(6, index)[1], 10**8, 10**8) for index in range(3)])
    engine = OpenVinoClassifier(SPEC, int8=True)
    engine.load(calibrated, FP32)
    logits, expected = engine.run(batch), reference(calibrated, batch)
    assert float((logits - expected).abs().max()) < 0.47 * float(expected.std())
    assert torch.allclose(engine.run(batch[:1]), logits[:1], atol=1e-4)
    assert engine.describe() == {"engine": "openvino", "precision": "int8", "network": "archive"}


def test_a_lone_image_is_computed_with_its_own_threads_and_as_in_a_batch(small):
    engine, batch = OpenVinoClassifier(SMALL), levels(SMALL, 3)
    engine.load(small, replace(FP32, threads=1, lone_threads=2))
    threads = {
        request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
        for request in (engine._lone, engine._request)
    }
    assert threads == {1, 2}
    assert torch.allclose(engine.run(batch[:1]), engine.run(batch)[:1], atol=1e-5)


@pytest.mark.parametrize("make", [lambda spec: TorchClassifier(spec, 8), OpenVinoClassifier])
def test_ready_pixels_are_taken_as_they_are(small, make):
    ready = SMALL._replace(normalization=None)
    batch = levels(SMALL, 2)
    mean, std = (torch.tensor(values) for values in NORMALIZATION[1:])
    engine = make(ready)
    engine.load(small, FP32)
    logits = engine.run(((batch * NORMALIZATION.scale - mean) / std).permute(0, 3, 1, 2))
    assert torch.allclose(logits, reference(small, batch), atol=1e-4)


def test_answers_outlive_the_next_batch(small):
    engine = OpenVinoClassifier(SMALL)
    engine.load(small, FP32)
    batch = levels(SMALL, 2)
    first = engine.run(batch[:1])
    kept = first.clone()
    engine.run(batch[1:])
    assert torch.equal(first, kept)


def test_openvino_leaves_a_gpu_alone(small):
    with pytest.raises(EngineUnavailable, match="computes on a CPU"):
        OpenVinoClassifier(SMALL).load(small, Device(torch.device("cuda:0"), torch.float32, 1))


@pytest.fixture(scope="module")
def compiled(small, tmp_path_factory):
    """The small network with a package for this CPU; about ten seconds."""
    folder = tmp_path_factory.mktemp("compiled") / "model"
    shutil.copytree(small, folder)
    (folder / PREPARED).mkdir()
    compile_package(folder, SMALL, FP32, folder / PREPARED)
    return folder


@needs_compiler
@pytest.mark.full
def test_a_compiled_package_gives_the_same_numbers(compiled):
    engine = TorchCompiledClassifier(SMALL, 8)
    engine.load(compiled, FP32)
    batch = levels(SMALL, 5)
    expected = reference(compiled, batch)
    for count in (1, 2, 5):
        assert torch.allclose(engine.run(batch[:count]), expected[:count], atol=1e-4)
    assert engine.describe() == {"engine": "torch-compiled", "precision": "fp32"}


@needs_compiler
@pytest.mark.full
def test_a_compiled_package_is_for_its_cpu_precision_and_torch(compiled, monkeypatch):
    def refused(device=FP32):
        with pytest.raises(EngineUnavailable) as error:
            TorchCompiledClassifier(SMALL, 8).load(compiled, device)
        return str(error.value)

    assert refused(BF16) == "the compiled network is in fp32, not in bf16"
    flags = cpu_flags() - {"avx2", "fma"}
    with monkeypatch.context() as patch:
        patch.setattr(torch_compiled_classifier, "cpu_flags", lambda: flags)
        assert refused() == "the compiled network is for a CPU with avx2, fma, which this one lacks"
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert "not 1.0" in refused()


def test_a_compiled_package_takes_no_larger_batches_than_it_was_made_for(small):
    with pytest.raises(EngineUnavailable, match=f"at most {MAX_BATCH} images at once"):
        TorchCompiledClassifier(SMALL, MAX_BATCH + 1).load(small, FP32)


def test_without_a_package_there_is_no_compiled_engine(small):
    with pytest.raises(EngineUnavailable, match=r"pack it with handler\.engine: torch-compiled"):
        TorchCompiledClassifier(SMALL, 8).load(small, FP32)
    assert not (small / PREPARED / PACKAGE).exists()
    assert not (small / PREPARED / MADE_FOR).exists()


def test_an_openvino_worker_imports_and_tells_nothing_more(calibrated, tmp_path):
    """transformers costs a second and 100 MB; OpenVINO's and NNCF's own telemetry never starts."""
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
from handlers.engines.openvino_classifier import OpenVinoClassifier
from tests.unit.handlers.engines.conftest import FP32, SMALL

def engine():
    made = OpenVinoClassifier(SMALL)
    made.load(Path(sys.argv[1]), FP32)
    return made

first, second = engine(), engine()
del first
del second
signal.signal(signal.SIGTERM, lambda *_: print("still here"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.full
def test_a_signal_after_networks_have_gone_does_not_end_the_process(small):
    """In any order: OpenVINO leaves a freed signal stack otherwise."""
    command = [sys.executable, "-c", SIGNALED, small]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr
