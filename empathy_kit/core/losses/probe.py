"""Whether a loss is computed by the kit's kernels, found out by calling it: nothing else knows another's code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from empathy_kit.core import kernels


def probe(
    criterion: Callable[[Tensor, Tensor], Tensor],
    classes: int,  # columns of its logits
    device: torch.device,
) -> kernels.Use:
    """What one call of a copy uses of the kernels under the choice that holds here: one row per class, all logits 0.

    A module is not changed, and neither is torch's random state. A call that fails uses nothing: it fails again, and is named,
    where the loss is used in earnest.
    """
    logits = torch.zeros(classes, classes, device=device, requires_grad=True)
    with kernels.fused(kernels.choice()) as use:
        try:
            with torch.random.fork_rng([] if device.type == "cpu" else [device]), torch.enable_grad():
                loss = copy.deepcopy(criterion)
                module = getattr(loss, "__self__", loss)  # a head's own criterion is a method of it
                if isinstance(module, nn.Module):
                    module.to(device)
                loss(logits, torch.arange(classes, device=device))
        except Exception:  # another's code, which may raise anything
            return kernels.Use(use.choice)
    return use
