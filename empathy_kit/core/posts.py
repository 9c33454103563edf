"""The post encoder that every trunk is given: both posts' states, whatever way the encoder computes them fastest."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit.contracts import Texts
from empathy_kit.core.encoder import padded_states
from empathy_kit.core.frozen import FrozenStates, Post, freeze
from empathy_kit.core.probe import probe
from empathy_kit.core.unpadded import encode_unpadded, lower_states, make_unpadded, scatter, upper_states


class PostEncoder(nn.Module):
    """Texts -> encoder states of the seeker post (B, Ls, D) and of the response (B, L, D), zeros at the padding.

    The posts of both sides are stacked, so that seeker and response share one encoder call. On a CPU, where padding costs
    time, the call is over the real tokens alone if the encoder's architecture allows it.

    With ``freeze_layers`` the layers above alone are trained; what is below runs without dropout.

    Raises:
        KitError: more layers to freeze than the encoder has.
    """

    def __init__(self, model: nn.Module, *, freeze_layers: int = 0) -> None:
        super().__init__()
        self.model = model
        self.width, self.warning = probe(model)
        self.unpadded = self.warning is None and make_unpadded(model)
        self.freeze_layers = freeze_layers
        self._frozen = tuple(freeze(model, freeze_layers)) if freeze_layers else ()
        self._states: FrozenStates | None = None

    def remember(self, posts: Iterable[Post], folder: Path) -> FrozenStates | None:
        """Compute the frozen layers' states of these posts once, and keep them in a file that other runs share.

        None, and nothing is kept, where no layer is frozen or the encoder is not read without padding.

        Raises:
            KitError: the folder cannot be written.
        """
        if self.freeze_layers and self.unpadded and next(self.model.parameters()).device.type == "cpu":
            self._states = FrozenStates(self.model, self.freeze_layers, posts, folder)
        return self._states

    def copy(self, *, frozen: bool = False) -> PostEncoder:
        """An independent post encoder with the same weights; a ``frozen`` one is never trained, and always in eval mode."""
        states, self._states = self._states, None  # a file of states belongs to who remembered it
        try:
            twin = copy.deepcopy(self)
        finally:
            self._states = states
        if frozen:
            twin.requires_grad_(False)
            twin._frozen = (twin.model,)
            if twin.unpadded:  # nothing is left to be computed above them
                twin.freeze_layers = len(twin.model.encoder.layer)  # type: ignore[union-attr,arg-type]
            twin.model.eval()
        return twin

    def train(self, mode: bool = True) -> Self:
        """As every module's; the frozen layers stay as they are."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """States of both posts: (B, Ls, D), (B, L, D)."""
        longest = max(texts.seeker.shape[1], texts.response.shape[1])
        ids, mask = (
            torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in parts])  # (2B, longest)
            for parts in ((texts.seeker, texts.response), (texts.seeker_mask, texts.response_mask))
        )
        seeker, response = torch.split(self._encode(ids, mask), len(texts))
        return seeker[:, : texts.seeker.shape[1]], response[:, : texts.response.shape[1]]

    def seeker(self, texts: Texts) -> Tensor:
        """States of the seeker posts alone, (B, Ls, D)."""
        return self._encode(texts.seeker, texts.seeker_mask)

    def response(self, texts: Texts) -> Tensor:
        """States of the responses alone, (B, L, D)."""
        return self._encode(texts.response, texts.response_mask)

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L) int64, (B, L) bool -> (B, L, D)
        if not self.unpadded or ids.device.type != "cpu":
            return padded_states(self.model, ids, mask)
        if not self.freeze_layers:
            return encode_unpadded(self.model, ids, mask)
        lower = lower_states(self.model, ids, mask, self.freeze_layers) if self._states is None else self._states(ids, mask)
        return scatter(upper_states(self.model, lower, mask, self.freeze_layers), mask)
