"""Several processes take the steps of one: the same gradients, the same losses, the same scores, whatever their shares are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shared_steps import BATCHES, KINDS, fitted, steps
from small import TRAIN, make_examples, without_labels
from torch import Tensor

from empathy_kit.core.objective import Counts
from empathy_kit.core.processes import Processes

TOLERANCE = 1e-6
Found = list[tuple[dict[str, Tensor], dict[str, Any]]]  # per process


@pytest.fixture(scope="module")
def written(torchrun: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    done = torchrun(3, Path(__file__).with_name("shared_steps.py"), folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=[2, 3])
def several(request: pytest.FixtureRequest, written: Path) -> Found:
    """What each of 2 or 3 processes has."""
    names = [written / f"{rank}-of-{request.param}" for rank in range(request.param)]
    return [(load_file(name.with_suffix(".safetensors")), json.loads(name.with_suffix(".json").read_text())) for name in names]


@pytest.fixture(scope="module")
def stepped() -> dict[tuple[str, bool], tuple[dict[str, Tensor], list[float]]]:
    """What one process has, by itself."""
    return {kind: steps(*kind, Processes()) for kind in KINDS}


@pytest.mark.processes
def test_the_gradients_and_losses_of_several_processes_are_those_of_one(
    several: Found, stepped: dict[tuple[str, bool], tuple[dict[str, Tensor], list[float]]]
) -> None:
    for (name, missing), (alone, losses) in stepped.items():
        assert len(losses) == len(BATCHES)
        for tensors, numbers in several:
            mark = f"{name} {missing} "
            found = {key.removeprefix(mark): grad for key, grad in tensors.items() if key.startswith(mark)}
            assert found.keys() == alone.keys()  # what has no label has no gradient, in any process
            torch.testing.assert_close(found, alone, atol=TOLERANCE, rtol=0)
            assert numbers[f"{name} {missing}"] == pytest.approx(losses, abs=TOLERANCE)


@pytest.mark.processes
def test_all_processes_end_with_the_same_bits_and_with_the_scores_of_one(several: Found) -> None:
    _, epochs, predicted = fitted(Processes())
    (first, numbers), *others = several
    for tensors, same in others:
        assert same == numbers
        for key in (key for key in first if key.startswith("fitted ")):
            assert torch.equal(tensors[key], first[key]), key
    for epoch, alone in zip(numbers["epochs"], epochs, strict=True):
        assert {name: value for name, value in epoch.items() if "loss" not in name} == {
            name: value for name, value in alone.items() if "loss" not in name
        }
        assert epoch["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-5)
        assert epoch["validation_loss"] == pytest.approx(alone["validation_loss"], abs=1e-5)
    assert numbers["predicted"]["spans"] == predicted["spans"]
    for task in ("ER", "EX"):
        torch.testing.assert_close(torch.tensor(numbers["predicted"][task]), torch.tensor(predicted[task]), atol=1e-4, rtol=0)


def test_the_cases_have_shares_without_a_pair_and_without_a_label() -> None:
    """The negative control: without them, an average of the processes' gradients would pass."""
    from shared_steps import MISSING

    known = without_labels(TRAIN, MISSING).levels() >= 0
    for count in (2, 3):
        shares = [[[batch[at] for at in Processes(rank, count).share(len(batch))] for rank in range(count)] for batch in BATCHES]
        assert not known[shares[0][1], 1].any()
        assert known[shares[0][0], 1].any()
        assert not known[list(BATCHES[1]), 1].any()
        assert not known[list(BATCHES[3])].any()
        assert [] in shares[3]
        assert len({len(share) for share in shares[1]}) == 2


def test_the_counts_of_a_batch_are_its_labelled_pairs_and_the_response_tokens_of_known_evidence() -> None:
    examples = without_labels(make_examples(3, seed=0), {0: (0, 1), 2: (1,)})
    counts = Counts.of(examples.texts, examples.labels)
    lengths = [len(pair.response) for pair in examples.texts]
    assert counts == Counts(labelled=(2, 1), tokens=2 * lengths[1] + lengths[2])


def test_the_random_numbers_of_a_process_follow_from_seed_position_and_rank() -> None:
    drawn = {}
    for rank in (1, 2):
        for step in (0, 1):
            Processes(rank, 3).seed_step(0, 1, step)
            drawn[rank, step] = torch.rand(3)
    assert len({tuple(each.tolist()) for each in drawn.values()}) == 4
    Processes(2, 3).seed_step(0, 1, 1)
    assert torch.equal(torch.rand(3), drawn[2, 1])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Processes(0, 3).seed_step(0, 1, 1)  # the first has its own stream, which a checkpoint holds
    assert torch.equal(torch.rand(3), expected)
