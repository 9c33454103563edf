"""A saved state goes on with the same bits, wherever training was stopped, and whatever it was that learnt."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from small import NAMES, RECIPE, TRAIN, Small, make_model, same, weights, without_clock
from torch import Tensor, nn

from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.losses.focal import FocalLoss
from empathy_kit.core.rationales import PredictedRationale
from empathy_kit.core.samplers import resample
from empathy_kit.core.snapshot import pack, unpack
from empathy_kit.core.state import Epoch
from empathy_kit.errors import KitError

WHOLE = replace(RECIPE, batch_size=5, epochs=2, warmup=0.2, schedule="linear", clip=1.0, average=0.9, select="macro-f1")


class Warm(nn.Module):
    """Cross-entropy with a learnt temperature, and noise from every source of random numbers that a plugin may draw from."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        noise = float(np.random.rand() + torch.rand(())) * 1e-3 if self.training else 0.0
        return cross_entropy(logits * self.log_scale.exp(), target) * (1 + noise)


class Own(LinearHead):
    """A head that learns through a criterion of its own."""

    def __init__(self) -> None:
        super().__init__(12, 2)
        self.criterion = Warm()


def with_own_criteria() -> Small:
    torch.manual_seed(0)
    heads = {name: Own() for name in NAMES}
    return Small(WHOLE, model=make_model(heads=heads), criteria={name: head.criterion for name, head in heads.items()})


def with_a_span_head() -> Small:
    torch.manual_seed(0)
    return Small(WHOLE, model=make_model(injector=PredictedRationale(2, 16)))


def with_frozen_layers() -> Small:
    torch.manual_seed(0)
    return Small(WHOLE, model=make_model(frozen=1))


KINDS = {
    "a plain loss": lambda: Small(WHOLE),
    "focal, the last weights": lambda: Small(replace(WHOLE, average=None), criteria={name: FocalLoss(1.5) for name in NAMES}),
    "a learnt and noisy loss": lambda: Small(WHOLE, criteria={name: Warm() for name in NAMES}),
    "heads with criteria of their own": with_own_criteria,
    "oversampling": lambda: Small(WHOLE, sample=resample(TRAIN.levels(), power=1.0, fewest=1.0, most=3.0)),
    "a span head": with_a_span_head,
    "frozen layers": with_frozen_layers,
    "bfloat16": lambda: Small(WHOLE, precision="bf16"),
}


def made(kind: str, seed: int = 0) -> Small:
    np.random.seed(seed)
    return KINDS[kind]()


def kept(small: Small) -> tuple[str, bytes]:
    """A state as files hold it: JSON and safetensors."""
    packed, tensors = pack(small.state.state_dict())
    return json.dumps(packed), save(tensors)


def put_back(small: Small, state: tuple[str, bytes]) -> None:
    small.state.load_state_dict(unpack(json.loads(state[0]), load(state[1])))


def without_seconds(state: tuple[str, bytes]) -> tuple[Any, bytes]:
    """A state as it would be on any machine."""

    def still(value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and "seconds" in value[0]:
            return [value[0], 0]  # pairs_per_second too
        return (
            [still(part) for part in value]
            if isinstance(value, list)
            else ({name: still(part) for name, part in value.items()} if isinstance(value, dict) else value)
        )

    return still(json.loads(state[0])), state[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_loaded_continues_with_the_same_bits_from_every_step(kind: str) -> None:
    """All of the state one event later is compared, at 20 stops, and from the end of the first epoch that of training."""
    whole = made(kind)
    events, saved = [], [kept(whole)]
    for event in whole.trainer.fit(whole.state):
        events.append(event)
        saved.append(kept(whole))
    ends = [at for at, event in enumerate(events, start=1) if isinstance(event, Epoch)]
    again = made(kind, seed=999)
    for stop in range(len(events) - 1, -1, -1):  # backwards: whatever is not in the state would be of another step
        torch.manual_seed(999)
        put_back(again, saved[stop])
        assert without_clock([next(again.trainer.fit(again.state))]) == without_clock([events[stop]])
        assert without_seconds(kept(again)) == without_seconds(saved[stop + 1]), stop
    put_back(again, saved[ends[0]])
    assert without_clock([*events[: ends[0]], *again.fit()]) == without_clock(events)
    assert same(weights(again.model), weights(whole.model))
    assert same(weights(again.objective), weights(whole.objective))
    assert [epoch.best for epoch in again.state.history] == [epoch.best for epoch in whole.state.history]
    assert len(events) >= 20


def test_what_parts_of_a_state_share_is_kept_once_and_views_are_told_apart() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    state = {"one": table, 2: [table, table[0], table.T], "none": (None, True, 1.5, "text"), "empty": torch.zeros(0)}
    packed, tensors = pack(state)
    assert set(tensors) == {"one", "2/1", "2/2", "empty"}
    back = unpack(json.loads(json.dumps(packed)), load(save(tensors)))
    assert back.keys() == state.keys()
    assert all(torch.equal(*pair) for pair in zip((back["one"], *back[2]), (table, table, table[0], table.T), strict=True))
    assert back["none"] == [None, True, 1.5, "text"]
    with pytest.raises(TypeError, match=r"^part/0: a set found, expected a tensor, number, text, list or mapping$"):
        pack({"part": [set()]})


def test_one_step_more_is_another_state() -> None:
    """The negative control: the comparison above can fail."""
    found = []
    for stop in (1, 2):
        small = Small(WHOLE)
        going = small.trainer.fit(small.state)
        for _ in range(stop):
            next(going)
        found.append(copy.deepcopy(small.state.state_dict()))
    assert not same(found[0]["trained"], found[1]["trained"])
    assert not torch.equal(found[0]["random"]["torch"], found[1]["random"]["torch"])
    assert found[0]["position"] != found[1]["position"]
    assert all(not torch.equal(*means) for means in zip(*(each["average"]["means"] for each in found), strict=True))


def test_an_interrupted_fit_may_be_called_again_on_the_same_state() -> None:
    whole = Small(WHOLE)
    events = without_clock(whole.fit())
    stopped = Small(WHOLE)  # made here: building it seeds the dropout too
    going = stopped.trainer.fit(stopped.state)
    before = [next(going) for _ in range(4)]
    going.close()
    assert [*without_clock(before), *without_clock(stopped.fit())] == events
    assert same(weights(stopped.model), weights(whole.model))


def test_a_finished_state_has_nothing_left_to_do() -> None:
    small = Small(replace(RECIPE, epochs=1))
    small.fit()
    kept = weights(small.model)
    assert small.fit() == []
    assert same(weights(small.model), kept)


def test_gradients_that_are_never_finite_in_half_precision_end_training_once_they_were_tried_unscaled() -> None:
    """The scale begins at 65536 and is halved by every step that is skipped: it is 1 in the 17th."""
    small = Small(criteria=dict.fromkeys(NAMES, lambda logits, target: (logits.sum(1) * 0).sqrt()))  # 0; its gradient is NaN
    small.state.scaler = torch.amp.GradScaler("cpu")  # which a trainer on the CPU does without
    with pytest.raises(KitError) as error:
        small.fit()
    assert str(error.value) == (
        "the gradient is not finite in float16, even unscaled, in epoch 3, step 5; "
        "try precision bf16 or no, or a smaller learning rate"
    )
