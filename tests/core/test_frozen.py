"""The kept states of frozen layers: the encoder's own, private, checked at every use, and no more of them than was agreed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from empathy_kit.contracts import Texts
from empathy_kit.core import frozen
from empathy_kit.core.frozen import FrozenStates, freeze
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.unpadded import lower_states, make_unpadded
from empathy_kit.errors import KitError
from empathy_kit.files import staged_file

POSTS = [(0, 5, 6, 2), (0, 7, 2), (0, 2)]


def small(architecture: str = "bert", **changes: object) -> nn.Module:
    torch.manual_seed(0)
    plain = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = AutoConfig.for_model(architecture, **{**plain, "max_position_embeddings": 20, "pad_token_id": 1, **changes})
    encoder: nn.Module = AutoModel.from_config(config, attn_implementation=None)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def keep(folder: Path, encoder: nn.Module | None = None, posts: list[tuple[int, ...]] = POSTS, depth: int = 1) -> FrozenStates:
    encoder = encoder or small()
    make_unpadded(encoder)
    freeze(encoder, depth)
    return FrozenStates(encoder, depth, posts, folder)


def batch(posts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, posts))
    mask = torch.arange(longest) < torch.tensor([len(post) for post in posts])[:, None]
    return torch.tensor([[*post, *[1] * (longest - len(post))] for post in posts]), mask


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_kept_states_are_those_that_the_layers_give(tmp_path: Path, architecture: str) -> None:
    encoder = small(architecture)
    states = keep(tmp_path, encoder, depth=2)
    ids, mask = batch([*POSTS[::-1], (0, 9, 9, 9, 2)])  # the last is not in the file
    torch.testing.assert_close(states(ids, mask), lower_states(encoder, ids, mask, 2), rtol=0, atol=1e-6)


def test_another_encoder_another_depth_and_other_posts_are_other_files(tmp_path: Path) -> None:
    found = {
        keep(tmp_path).path,
        keep(tmp_path, depth=2).path,
        keep(tmp_path, posts=POSTS[:2]).path,
        keep(tmp_path, small(num_attention_heads=4)).path,  # the same weights, read otherwise
        keep(tmp_path, small(layer_norm_eps=1e-3)).path,
    }
    assert len(found) == 5
    assert keep(tmp_path, small(hidden_dropout_prob=0.3)).path in found  # nothing is dropped where nothing is trained


def test_another_release_of_torch_or_transformers_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path).path
    for library in ("torch", "transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(f"empathy_kit.core.frozen.{library}.__version__", "9")
            assert keep(tmp_path).path != path


def test_another_number_of_threads_or_another_processor_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits depend on them, and a run's numbers must not depend on which run came first."""
    path = keep(tmp_path).path
    others = (
        (torch, "get_num_threads", 7),
        (torch.backends.cpu, "get_cpu_capability", "ABACUS"),
        (frozen, "maker", "Babbage"),
    )
    for owner, name, value in others:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda value=value: value)
            assert keep(tmp_path).path != path
    with monkeypatch.context() as patch:
        patch.setenv("MKL_ENABLE_INSTRUCTIONS", "SSE4_2")
        assert keep(tmp_path).path != path
    assert keep(tmp_path).path == path


@pytest.mark.parametrize(
    "damage", ["a flipped bit", "another shape", "zeros", "cut short", "empty", "longer", "a pickle", "a zip", "a larger header"]
)
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: str) -> None:
    whole = keep(tmp_path)
    content = whole.path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    header = content[:128]
    whole.path.write_bytes(
        {
            "a flipped bit": bytes(flipped),
            "zeros": header + bytes(len(content) - len(header)),
            "cut short": content[:-8],
            "empty": b"",
            "longer": content + b"x",
            "another shape": content.replace(b"(9, 16)", b"(-9,16)"),
            "a larger header": content.replace(b"(9, 16)", b"(9e9,8)"),
            "a pickle": b"\x80\x04." * 100,
            "a zip": b"PK\x03\x04" + content[4:],
        }[damage]
    )
    again = keep(tmp_path)
    assert again.path == whole.path
    assert again.path.read_bytes() == content


def test_nobody_else_may_read_what_the_posts_can_be_recovered_from(tmp_path: Path) -> None:
    path = keep(tmp_path / "states").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_states_in_use_survive_their_file_s_deletion(tmp_path: Path) -> None:
    states = keep(tmp_path)
    ids, mask = batch(POSTS)
    expected = states(ids, mask)
    states.path.unlink()
    again = keep(tmp_path)
    assert again.path.exists()
    assert torch.equal(states(ids, mask), expected)
    assert torch.equal(again(ids, mask), expected)


def test_a_cache_that_is_only_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path).path

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("utime", "chmod", "fsync"):
        monkeypatch.setattr(os, name, refuse)
    assert keep(tmp_path).path == path


def test_the_states_that_were_not_used_for_longest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = keep(tmp_path).path, keep(tmp_path, depth=2).path
    for age, path in ((300, first), (200, second)):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    keep(tmp_path)  # used again: now it is the younger one
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", str(2 * first.stat().st_size))
    third = keep(tmp_path, posts=POSTS[:2]).path
    assert {path.name for path in tmp_path.iterdir()} == {first.name, third.name}
    for path in (first, third):
        os.utime(path, (1e9,) * 2)
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", "1")
    fourth = keep(tmp_path, posts=POSTS[1:]).path
    assert list(tmp_path.iterdir()) == [fourth]  # what a run is about to use stays


def test_a_limit_that_is_no_number_is_one_line_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", "20 GB")
    with pytest.raises(KitError) as error:
        keep(tmp_path)
    assert str(error.value) == (
        "freeze-layers 1: EMPATHY_KIT_STATES_LIMIT is '20 GB', expected a number of bytes such as 21474836480"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("bert", {}),
        ("mpnet", {}),  # its position bias is added in every layer
        ("electra", {"embedding_size": 12}),  # between embeddings and layers there is a projection
        ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c"], "norm_rel_ebd": "layer_norm"}),
        ("gpt2", {"n_embd": 16, "n_layer": 3, "n_head": 2}),
    ],
)
def test_the_layers_above_alone_are_trained(architecture: str, changes: dict[str, object]) -> None:
    encoder = PostEncoder(small(architecture, **changes), freeze_layers=2)
    parts = {part: name for name, part in encoder.model.named_modules()}
    dropping = {parts[part] for part in encoder.modules() if isinstance(part, nn.Dropout) and part.training}
    assert dropping <= {name for name in parts.values() if ".2." in name}  # before anybody has called train or eval
    encoder.train()
    ids, mask = batch(POSTS)
    encoder.response(Texts(ids, mask, ids, mask)).pow(2).sum().backward()
    trained = {name for name, weight in encoder.model.named_parameters() if weight.grad is not None}
    assert trained
    assert all(".2." in name or name.startswith("h.2.") for name in trained)


def test_reading_does_not_touch_what_other_threads_read_with() -> None:
    encoder = PostEncoder(small(), freeze_layers=2).train()
    modes = {part: part.training for part in encoder.modules()}
    changed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "train", lambda self, mode=True: changed.append(self))
        ids, mask = batch(POSTS)
        encoder.response(Texts(ids, mask, ids, mask))
    assert changed == []
    assert modes == {part: part.training for part in encoder.modules()}


def test_layers_that_cannot_be_told_apart_cannot_be_frozen() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("albert", hidden_size=16, num_attention_heads=2, intermediate_size=24, num_hidden_layers=3)
    with pytest.raises(
        KitError, match=r"^freeze-layers 1: the layers of this encoder \(AlbertModel\) are not known, expected 0$"
    ):
        freeze(AutoModel.from_config(config), 1)


def test_a_frozen_copy_reads_all_its_states_from_the_file(tmp_path: Path) -> None:
    encoder = PostEncoder(small())
    twin = encoder.copy(frozen=True)
    ids, mask = batch(POSTS)
    texts = Texts(ids, mask, ids, mask)
    expected = twin.seeker(texts)
    kept = twin.remember(POSTS, tmp_path)
    assert kept is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(twin.model.embeddings), "forward", None)  # type: ignore[union-attr]
        torch.testing.assert_close(twin.seeker(texts), expected, rtol=0, atol=1e-6)
    assert encoder.remember(POSTS, tmp_path) is None  # the other one is trained


def test_frozen_layers_say_the_same_in_half_precision_kept_or_not(tmp_path: Path) -> None:
    encoder = small()
    states = keep(tmp_path, encoder, depth=2)  # computed in float32, as a run does before its training
    ids, mask = batch(POSTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        computed = lower_states(encoder, ids, mask, 2)
        kept = states(ids, mask)
    torch.testing.assert_close(kept, computed, rtol=0, atol=1e-6)


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    encoder = PostEncoder(small(), freeze_layers=2).eval()
    encoder.remember(POSTS[:2], tmp_path)
    ids, mask = batch(POSTS)
    texts = Texts(ids, mask, ids, mask)

    def read(_: int) -> torch.Tensor:
        with torch.inference_mode():
            return encoder.response(texts)

    expected = read(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(found, expected) for found in threads.map(read, range(40)))


def test_states_that_several_want_at_once_are_computed_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small()
    make_unpadded(encoder)
    freeze(encoder, 1)
    computed: list[int] = []
    compute = FrozenStates._compute

    def slowly(self: FrozenStates, *arguments: Any) -> None:
        computed.append(1)
        time.sleep(0.3)
        compute(self, *arguments)

    monkeypatch.setattr(FrozenStates, "_compute", slowly)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: FrozenStates(encoder, 1, POSTS, tmp_path), range(4)))
    assert len(computed) == 1
    assert [path.name for path in tmp_path.iterdir()] == [found[0].path.name]  # and no lock is left


def test_the_states_of_a_call_are_written_before_the_next_call_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a large table are larger than the memory."""
    done: list[str] = []

    @contextmanager
    def watched(path: Path, mode: int) -> Iterator[Any]:
        with staged_file(path, mode) as stream:
            yield SimpleNamespace(write=lambda block: (done.append("written"), stream.write(block)))

    def compute(*arguments: Any) -> torch.Tensor:
        done.append("computed")
        return lower_states(*arguments)

    monkeypatch.setattr(frozen.files, "staged_file", watched)
    monkeypatch.setattr(frozen, "lower_states", compute)
    monkeypatch.setattr(frozen, "calls", lambda lengths: [[length] for length in lengths])
    keep(tmp_path)
    assert done == ["written", *["computed", "written"] * len(POSTS), "written"]  # a header, the states, and a digest
