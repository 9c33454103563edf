"""The paper's trunk: both posts and the rationale through one packed GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from empathy_kit.contracts import Encoded, Injection, Texts
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.recurrence import GRU


class GRUTrunk(nn.Module):
    """Texts -> Encoded, and the injector's span logits on the way."""

    def __init__(self, encoder: PostEncoder, injector: nn.Module, *, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.injector = injector
        self.width = hidden
        self.gru = GRU(encoder.width, hidden, num_layers=layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool, None where the injector may not see it
    ) -> tuple[Encoded, Tensor | None]:  # and span_logits (B, T, L)
        seeker, response = self.encoder(texts)
        injection: Injection = self.injector(response, texts.response_mask, gold)
        states = torch.cat([seeker, response, injection.states.to(response.dtype)], dim=1)  # (B, Ls + L + K, D)
        mask = torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], dim=1)
        return self.recur(states, mask), injection.span_logits

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
