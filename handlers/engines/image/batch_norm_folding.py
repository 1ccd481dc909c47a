"""Fold batch norms into the convolutions before them, which saves a GPU one kernel for each."""

import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MAX_LOGIT_ERROR = 1e-3
"""Largest difference of a logit to that of the original network, relative to the largest logit, in float32."""


def fold_batch_norms(network: nn.Module, batch: torch.Tensor) -> nn.Module:
    """Return a copy of a network whose batch norms are folded into the convolutions whose outputs they normalize.

    If something else reads the output of such a convolution, the logits change, and the network stays as it is.
    This is only checked with `batch`: a network that takes another path for another input can change there.

    Args:
        network: A network in evaluation mode and float32.
        batch: An input for which the logits are compared.

    Returns:
        The network itself if it has no such batch norm, or if the logits differ by more than MAX_LOGIT_ERROR.
    """
    if not any(type(module) is nn.BatchNorm2d for module in network.modules()):
        return network
    pairs = _find_pairs(network, batch)
    if not pairs:
        return network
    folded = copy.deepcopy(network)
    for names in pairs:
        convolution, batch_norm = map(folded.get_submodule, names)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(batch_norm, nn.BatchNorm2d)
        folded.set_submodule(names[0], fuse_conv_bn_eval(convolution, batch_norm))
        folded.set_submodule(names[1], nn.Identity())
    expected = network(batch)
    error = (folded(batch) - expected).abs().max()
    return folded if error <= MAX_LOGIT_ERROR * expected.abs().max() else network


def _find_pairs(network: nn.Module, batch: torch.Tensor) -> list[tuple[str, str]]:
    """Return the names of each convolution and the batch norm that reads its output in a run of `batch`.

    Subclasses, parametrized modules (which are subclasses too) and modules with hooks are left out, because they may
    do more. Modules that run more than once are left out as well.
    """
    outputs: dict[int, tuple[str, torch.Tensor]] = {}  # the tensors stay alive, so their ids are unique
    pairs: list[tuple[str, str]] = []
    runs: Counter[str] = Counter()

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            runs[name] += 1
            if type(module) is nn.Conv2d:
                outputs[id(output)] = name, output
            elif inputs and id(inputs[0]) in outputs and isinstance(module.running_mean, torch.Tensor):
                pairs.append((outputs[id(inputs[0])][0], name))

        return module.register_forward_hook(record)

    hooks = [
        watch(name, module)
        for name, module in network.named_modules()
        if type(module) in (nn.Conv2d, nn.BatchNorm2d)
        and not (module._forward_pre_hooks or module._forward_hooks)
    ]
    try:
        network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]
