"""In which precision a device computes without instructions for it."""

from __future__ import annotations

import pytest
import torch

from empathy_kit.core.precision import Precision, is_emulated


@pytest.mark.parametrize(
    ("device", "precision", "instructions", "library", "emulated"),
    [
        ("cpu", "bf16", True, True, False),
        ("cpu", "bf16", False, True, True),
        ("cpu", "bf16", True, False, True),  # a build of torch without oneDNN, which alone uses them
        ("cpu", "no", False, True, False),
        ("cuda", "bf16", False, True, False),  # refused where the GPU has it not
    ],
)
def test_bf16_on_a_processor_without_it(
    device: str, precision: Precision, instructions: bool, library: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: instructions, raising=False)
    assert is_emulated(torch.device(device), precision) is emulated
