"""What there is to compute on."""

from __future__ import annotations

import os

from empathy_kit.cluster import cores


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
