"""The trunk's GRU: torch's own, and on a CPU the same with a backward that makes each weight's gradient in one product."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class GRU(nn.GRU):
    """``nn.GRU``, one-way, over packed sequences: the same parameters, names and numbers.

    On a CPU autograd would make the recurrent weights' gradient anew at every time step (786 kB of it at a width of 256) and
    add them up, which takes longer than the recurrence itself.
    """

    def states(self, packed: PackedSequence) -> PackedSequence:
        """The top layer's state at every time step."""
        sizes: list[int] = packed.batch_sizes.tolist()
        device = packed.data.device.type
        # Products in half precision would accumulate over a hundred steps, and cuDNN's are in float16 whatever autocast is to be.
        with torch.autocast(device, enabled=False):
            states = packed.data.float()
            if device != "cpu":
                outputs: PackedSequence = self(packed._replace(data=states))[0]
                return outputs
            for layer in range(self.num_layers):
                if layer:
                    states = F.dropout(states, self.dropout, self.training)
                weight_ih, weight_hh, bias_ih, bias_hh = self.all_weights[layer]
                states = _Layer.apply(F.linear(states, weight_ih, bias_ih), weight_hh, bias_hh, sizes)  # type: ignore[no-untyped-call]
        return PackedSequence(states, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


class _Layer(torch.autograd.Function):
    """One layer's recurrence. N counts the real time steps of all sequences, step after step, as in a PackedSequence."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,  # (N, 3H), the input's share of reset gate, update gate and candidate
        weight: Tensor,  # (3H, H)
        bias: Tensor,  # (3H,)
        sizes: list[int],  # sequences that are still running, a time step
    ) -> Tensor:  # (N, H)
        width = weight.shape[1]
        states, gates, candidates, recalled = (inputs.new_empty(len(inputs), times * width) for times in (1, 2, 1, 1))
        state = inputs.new_zeros(sizes[0] if sizes else 0, width)
        columns = weight.t().contiguous()
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            start += size
            state = state[:size]
            recurrent = torch.addmm(bias, state, columns)  # the state's share
            recalled[now] = recurrent[:, 2 * width :]
            torch.add(inputs[now, : 2 * width], recurrent[:, : 2 * width], out=gates[now]).sigmoid_()
            reset, update = gates[now].chunk(2, dim=1)
            torch.addcmul(inputs[now, 2 * width :], reset, recalled[now], out=candidates[now]).tanh_()
            state = torch.lerp(candidates[now], state, update, out=states[now])
        ctx.save_for_backward(weight, states, gates, candidates, recalled)
        ctx.sizes = sizes
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, states, gates, candidates, recalled = ctx.saved_tensors
        width = weight.shape[1]
        reset, update = gates.chunk(2, dim=1)
        previous = _previous(states, ctx.sizes)
        # How the state answers to each gate's and the candidate's own sum: known for all time steps at once.
        by_candidate = (1 - update) * (1 - candidates * candidates)
        by_update = (previous - candidates) * update * (1 - update)
        by_reset = recalled * reset * (1 - reset)  # through the candidate
        # The gradients of what the state gave in `forward`, and of the candidate's own sum.
        d_recurrent = states.new_empty(len(states), 3 * width)
        d_candidate = states.new_empty(len(states), width)
        later = gradient.new_zeros(0, width)
        end = len(states)
        for size in reversed(ctx.sizes):
            now = slice(end - size, end)
            end -= size
            here = gradient[now].clone()
            here[: len(later)] += later
            candidate = torch.mul(here, by_candidate[now], out=d_candidate[now])
            torch.mul(candidate, by_reset[now], out=d_recurrent[now, :width])
            torch.mul(here, by_update[now], out=d_recurrent[now, width : 2 * width])
            torch.mul(candidate, reset[now], out=d_recurrent[now, 2 * width :])
            later = torch.addmm(here.mul_(update[now]), d_recurrent[now], weight)
        return torch.cat([d_recurrent[:, : 2 * width], d_candidate], dim=1), d_recurrent.t() @ previous, d_recurrent.sum(0), None


def _previous(states: Tensor, sizes: list[int]) -> Tensor:
    """Each time step's state before it, zeros at the first."""
    previous = torch.zeros_like(states)
    start = 0
    for before, size in pairwise(sizes):
        previous[start + before : start + before + size] = states[start : start + size]
        start += before
    return previous
