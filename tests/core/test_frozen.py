"""The kept states of frozen layers: the encoder's own, private, checked at every use, and no more of them than was agreed."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from empathy_kit.contracts import Texts
from empathy_kit.core.frozen import FrozenStates, freeze
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.unpadded import lower_states, make_unpadded
from empathy_kit.errors import KitError

POSTS = [(0, 5, 6, 2), (0, 7, 2), (0, 2)]


def small(architecture: str = "bert", **changes: object) -> nn.Module:
    torch.manual_seed(0)
    plain = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = AutoConfig.for_model(architecture, **{**plain, "max_position_embeddings": 20, "pad_token_id": 1, **changes})
    encoder: nn.Module = AutoModel.from_config(config, attn_implementation="eager" if architecture == "mpnet" else "sdpa")
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


@pytest.mark.parametrize("damage", ["a flipped bit", "zeros", "cut short", "empty", "longer", "not numpy's"])
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
            "not numpy's": b"\x80\x04." * 100,
        }[damage]
    )
    again = keep(tmp_path)
    assert again.path == whole.path
    assert again.path.read_bytes() == content


def test_nobody_else_may_read_what_the_posts_can_be_recovered_from(tmp_path: Path) -> None:
    path = keep(tmp_path / "states").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_states_that_were_not_used_for_longest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = keep(tmp_path).path, keep(tmp_path, depth=2).path
    for age, path in ((100, first), (50, second)):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    keep(tmp_path)  # used again: now it is the younger one
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", str(2 * first.stat().st_size))
    third = keep(tmp_path, posts=POSTS[:2]).path
    assert {path.name for path in tmp_path.iterdir()} == {first.name, third.name}
    monkeypatch.setenv("EMPATHY_KIT_STATES_LIMIT", "1")
    fourth = keep(tmp_path, posts=POSTS[1:]).path
    assert list(tmp_path.iterdir()) == [fourth]  # what a run is about to use stays


def test_what_lower_layers_share_with_the_others_is_frozen_too() -> None:
    encoder = small("mpnet")
    freeze(encoder, 2)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad and "pooler" not in name}
    assert trained
    assert all(name.startswith("encoder.layer.2.") for name in trained)  # its position bias is added in every layer


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


@pytest.mark.parametrize("remembered", [True, False])
def test_frozen_layers_say_the_same_in_half_precision_kept_or_not(tmp_path: Path, remembered: bool) -> None:
    encoder = PostEncoder(small(), freeze_layers=2).eval()
    ids, mask = batch(POSTS)
    texts = Texts(ids, mask, ids, mask)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = encoder.response(texts)
        if remembered:
            encoder.remember(POSTS, tmp_path)
        assert torch.equal(encoder.response(texts), before)


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
