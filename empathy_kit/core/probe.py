"""What an encoder turns out to be on three short posts: how wide, and whether both ways of reading it agree."""

from __future__ import annotations

import torch
from torch import nn

from empathy_kit.core.encoder import padded_states, sample_posts
from empathy_kit.core.unpadded import encode_unpadded, make_unpadded

AGREEMENT = 1e-4
"""Relative deviation up to which padded posts and posts laid end to end count as the same."""


def probe(model: nn.Module) -> tuple[int, str | None]:
    """An encoder's width; and why posts laid end to end are not to be trusted to it, where its architecture allows them.

    Whatever a new release of transformers changes in a layer, both ways of reading three short posts must agree.
    """
    words, mask = sample_posts(model, (24, 2, 9))  # long enough for positions that are counted in steps
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            padded = padded_states(model.eval(), words, mask)
            if not make_unpadded(model):
                return padded.shape[-1], None
            try:
                flat = encode_unpadded(model, words, mask)
                deviation = float((flat - padded).abs().max() / padded.abs().max().clamp(min=1e-6))
            except Exception as error:  # a layer of another release takes other arguments, or returns something else
                return padded.shape[-1], f"posts are padded, because laid end to end they raise {type(error).__name__}"
    finally:
        model.train(training)
    if deviation < AGREEMENT:
        return padded.shape[-1], None
    warning = f"posts are padded, because laid end to end they give other states (relative deviation {deviation:.0e})"
    return padded.shape[-1], warning
