"""The shared trunk: encoder over both posts, rationale injection, packed GRU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from empathy_kit.contracts import Encoded, Injection
from empathy_kit.core.batch import Texts
from empathy_kit.core.frozen import FrozenStates, Post, freeze
from empathy_kit.core.recurrence import GRU
from empathy_kit.core.unpadded import encode_unpadded, make_unpadded, scatter, upper_states


class Trunk(nn.Module):
    """Texts -> Encoded, and the injector's span logits on the way.

    The posts of both sides are stacked, so that seeker and response share one encoder call. On a CPU, where padding costs
    time, the call is over the real tokens alone if the encoder's architecture allows it.

    With ``freeze_layers`` the encoder's embeddings and lowest layers are not trained, and run without dropout.

    Raises:
        KitError: more layers to freeze than the encoder has.
    """

    def __init__(
        self, encoder: nn.Module, injector: nn.Module, *, hidden: int, layers: int, dropout: float, freeze_layers: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.injector = injector
        self.unpadded = make_unpadded(encoder)
        self.freeze_layers = freeze_layers
        self._frozen = tuple(freeze(encoder, freeze_layers)) if freeze_layers else ()
        self._states: FrozenStates | None = None
        self.gru = GRU(
            int(encoder.config.hidden_size),  # type: ignore[union-attr,arg-type]
            hidden,
            num_layers=layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)

    def remember(self, posts: Iterable[Post], folder: Path) -> FrozenStates | None:
        """Compute what the frozen layers say of these posts once, and keep it in a file that other runs share.

        None, and nothing is kept, where no layer is frozen or the encoder is not read without padding.

        Raises:
            KitError: the folder cannot be written.
        """
        if self.freeze_layers and self.unpadded and next(self.encoder.parameters()).device.type == "cpu":
            self._states = FrozenStates(self.encoder, self.freeze_layers, posts, folder)
        return self._states

    def train(self, mode: bool = True) -> Self:
        """As every module's; the frozen layers stay as they are."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool, None where the injector may not see it
    ) -> tuple[Encoded, Tensor | None]:  # and span_logits (B, T, L)
        seeker, response = self.encode(texts)
        injection: Injection = self.injector(response, texts.response_mask, gold)
        states = torch.cat([seeker, response, injection.states.to(response.dtype)], dim=1)  # (B, Ls + L + K, D)
        mask = torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], dim=1)
        return self.recur(states, mask), injection.span_logits

    def encode(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Encoder states of both posts: (B, Ls, D), (B, L, D)."""
        longest = max(texts.seeker.shape[1], texts.response.shape[1])
        ids, mask = (
            torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in parts])  # (2B, longest)
            for parts in ((texts.seeker, texts.response), (texts.seeker_mask, texts.response_mask))
        )
        if self._states is not None:
            states = scatter(upper_states(self.encoder, self._states(ids, mask), mask, self.freeze_layers), mask)
        elif self.unpadded and ids.device.type == "cpu":
            states = encode_unpadded(self.encoder, ids, mask)  # (2B, longest, D)
        else:
            states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        seeker, response = torch.split(states, len(texts))
        return seeker[:, : texts.seeker.shape[1]], response[:, : texts.response.shape[1]]

    def recur(
        self,
        states: Tensor,  # (B, S, D)
        mask: Tensor,  # (B, S) bool
    ) -> Encoded:
        """The GRU over the real states alone, in order."""
        # Real states move to the front, keeping their order. Packed, or the GRU would read the padding between the posts and
        # its last state would depend on the neighbours' lengths.
        order = (~mask).byte().argsort(dim=1, stable=True)
        lengths = mask.sum(1)
        longest = int(lengths.max())
        front = order[:, :longest]
        states = states.gather(1, front[..., None].expand(-1, -1, states.shape[-1])).float()
        packed = pack_padded_sequence(states, lengths.cpu(), batch_first=True, enforce_sorted=False)
        sequence, _ = pad_packed_sequence(self.gru.states(packed), batch_first=True, total_length=longest)
        last = (lengths - 1)[:, None, None].expand(-1, 1, sequence.shape[-1])
        return Encoded(
            pooled=self.dropout(sequence.gather(1, last).squeeze(1)),
            sequence=self.dropout(sequence),
            mask=mask.gather(1, front),
        )
