"""Folding of batch norms into convolutions, on a CPU."""

import warnings

import pytest
import torch
from torch import nn

from handlers.engines.image.batch_norm_folding import fold_batch_norms
from handlers.engines.image.classifier_network import load_classifier
from tests.unit.handlers.engines.image.conftest import SMALL, levels

IMAGE = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm that changes its input."""
    module = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(0)
    for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
        tensor.data = torch.rand(channels, generator=generator) + 0.5
    return module


def weight_norm(convolution: nn.Conv2d) -> nn.Conv2d:
    """Compute the weight in a hook before each run. The function is deprecated, but networks of libraries use it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(convolution)


def count_batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.inference_mode()
def test_batch_norms_of_a_resnet_are_folded(small):
    network, batch = load_classifier(small, SMALL, torch.float32), levels(SMALL, 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 0.1
            module.running_var *= 2
    folded = fold_batch_norms(network, batch)
    assert count_batch_norms(network) > 0
    assert count_batch_norms(folded) == 0
    other = levels(SMALL, 4)[2:]
    assert torch.allclose(folded(other), network(other), rtol=1e-4, atol=1e-4)


class Skip(nn.Module):
    """A network in which an addition also reads the output of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), batch_norm(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.convolution(image)
        return self.normalization(hidden) + hidden


class Rescaling(nn.Conv2d):
    """A convolution that does more."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) * 2


class ByKeyword(nn.Module):
    """A network that calls its batch norm with a keyword argument."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 4, 3), batch_norm(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.normalization(input=self.convolution(image))


shared = batch_norm(3)


@pytest.mark.parametrize(
    "network",
    [
        Skip(),
        nn.Sequential(Rescaling(3, 4, 3), batch_norm(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), batch_norm(4)),
        nn.Sequential(nn.Conv2d(3, 3, 3), shared, nn.Conv2d(3, 3, 3), shared),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        ByKeyword(),
        nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), batch_norm(4)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), batch_norm(4)),
    ],
    ids=[
        *("another reader", "subclass", "not directly", "shared", "statistics of the batch", "keyword"),
        *("hook", "parametrization"),
    ],
)
@torch.inference_mode()
def test_network_stays_as_it_is(network):
    network.eval()
    assert fold_batch_norms(network, IMAGE) is network


@torch.inference_mode()
def test_batch_norm_is_folded_beside_a_convolution_with_a_hook():
    network = nn.Sequential(weight_norm(nn.Conv2d(3, 3, 3)), nn.Conv2d(3, 4, 3), batch_norm(4)).eval()
    folded = fold_batch_norms(network, IMAGE)
    assert count_batch_norms(folded) == 0
    assert torch.allclose(folded(IMAGE), network(IMAGE), atol=1e-5)


def test_network_without_batch_norm_does_not_run():
    network = nn.Sequential(nn.Conv2d(7, 4, 3))  # a run with three channels would fail
    assert fold_batch_norms(network, IMAGE) is network


@torch.inference_mode()
def test_convolution_without_bias_and_with_groups_is_folded():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), batch_norm(6), nn.ReLU()).eval()
    folded = fold_batch_norms(network, IMAGE)
    assert count_batch_norms(folded) == 0
    assert torch.allclose(folded(IMAGE * 2 - 1), network(IMAGE * 2 - 1), atol=1e-5)


@torch.inference_mode()
def test_weights_are_converted_after_folding(small):
    folded = load_classifier(small, SMALL, torch.bfloat16, folds_batch_norms=True)
    assert count_batch_norms(folded) == 0
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.bfloat16}
    assert folded.factor.dtype == torch.float32
    original, batch = load_classifier(small, SMALL, torch.float32), levels(SMALL, 3)
    expected = original(batch)
    assert (folded(batch) - expected).abs().max() < 0.02 * expected.abs().max()
