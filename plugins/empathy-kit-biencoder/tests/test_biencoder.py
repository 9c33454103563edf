"""The bi-encoder and its head keep the kit's promises."""

from __future__ import annotations

import pytest
from empathy_kit_biencoder import BI_ENCODER, DENSE

from empathy_kit.plugins import load_registry
from empathy_kit.testing import Check, head_checks, trunk_checks

OPTIONS = ({}, {"dropout": 0.0}, {"attention": False})
CHECKS = [check for options in OPTIONS for check in trunk_checks(BI_ENCODER, options=options)]


@pytest.mark.parametrize("check", [*CHECKS, *head_checks(DENSE)], ids=str)
def test_promise(check: Check) -> None:
    check()


def test_the_kit_finds_both() -> None:
    registry = load_registry()
    for kind, name in (("trunk", "bi-encoder"), ("head", "dense")):
        assert registry.get(kind, name).distribution == "empathy-kit-biencoder"  # type: ignore[arg-type]
