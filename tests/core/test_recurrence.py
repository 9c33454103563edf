"""The trunk's GRU says what torch's own says: values, and the gradient of everything that has one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from empathy_kit.core.recurrence import GRU

LENGTHS = {"ragged": (3, 7, 1, 5), "one": (4,), "a single step": (1, 1, 1), "like lengths": (6, 6)}


def both(layers: int, lengths: tuple[int, ...]) -> list[list[Tensor]]:
    """[states, gradient of the input, gradients of the parameters...], torch's first."""
    torch.manual_seed(0)
    ours = GRU(5, 4, num_layers=layers, batch_first=True, dtype=torch.float32)
    theirs = nn.GRU(5, 4, num_layers=layers, batch_first=True, dtype=torch.float32)
    theirs.load_state_dict(ours.state_dict())
    given = torch.randn(len(lengths), max(lengths), 5)
    weight = torch.randn(len(lengths), max(lengths), 4)
    results = []
    for gru in (theirs, ours):
        inputs = given.clone().requires_grad_()
        packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        outputs = gru.states(packed) if isinstance(gru, GRU) else gru(packed)[0]
        states, _ = pad_packed_sequence(outputs, batch_first=True)
        (states * weight).sum().backward()
        gradients = [parameter.grad for parameter in (inputs, *gru.parameters())]
        results.append([states, *(gradient for gradient in gradients if gradient is not None)])
    assert len(results[1]) == 2 + 4 * layers
    return results


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_states_and_gradients_are_those_of_torchs_gru(layers: int, lengths: tuple[int, ...]) -> None:
    for expected, found in zip(*both(layers, lengths), strict=True):
        assert (found - expected).abs().max() <= 1e-6


def test_its_weights_are_torchs_by_name_and_by_seed() -> None:
    torch.manual_seed(1)
    ours = GRU(5, 4, num_layers=2)
    torch.manual_seed(1)
    theirs = nn.GRU(5, 4, num_layers=2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_dropout_stands_between_layers_in_training_only() -> None:
    gru = GRU(5, 4, num_layers=2, batch_first=True, dropout=0.5)
    packed = pack_padded_sequence(torch.randn(2, 6, 5), torch.tensor([6, 4]), batch_first=True)
    assert not torch.equal(gru.states(packed).data, gru.states(packed).data)
    gru.eval()
    assert torch.equal(gru.states(packed).data, gru.states(packed).data)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_recurrence_stays_in_float32_under_autocast(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    gru = GRU(5, 4, num_layers=2, batch_first=True, device=device)
    packed = pack_padded_sequence(torch.randn(2, 6, 5, device=device), torch.tensor([6, 4]), batch_first=True)
    plain = gru.states(packed).data
    with torch.autocast(device, dtype=torch.bfloat16):
        found = gru.states(packed._replace(data=packed.data.bfloat16())).data
        assert found.dtype == torch.float32
        assert (found - plain).abs().max() < 0.01  # of the input's own rounding
        assert torch.equal(gru.states(packed).data, plain)
