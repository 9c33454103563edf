"""The built-in trunks: what they read of both posts and the rationale, with a GRU or without any recurrence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from empathy_kit.contracts import Encoded, Injection, Texts
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.recurrence import GRU


class GRUTrunk(nn.Module):
    """The seeker post, the response and the rationale, end to end, through one packed GRU (the paper's)."""

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
        states, mask = real_first(
            torch.cat([seeker, response, injection.states.to(response.dtype)], dim=1),  # (B, Ls + L + K, D)
            torch.cat([texts.seeker_mask, texts.response_mask, injection.mask], dim=1),
        )
        return self.recur(states.float(), mask), injection.span_logits

    def recur(
        self,
        states: Tensor,  # (B, S, D) float32
        mask: Tensor,  # (B, S) bool, real states first
    ) -> Encoded:
        """The GRU over the real states alone, in order."""
        # Packed, or the last state would depend on the neighbours' lengths.
        lengths = mask.sum(1)
        packed = pack_padded_sequence(states, lengths.cpu(), batch_first=True, enforce_sorted=False)
        sequence, _ = pad_packed_sequence(self.gru.states(packed), batch_first=True, total_length=mask.shape[1])
        last = (lengths - 1)[:, None, None].expand(-1, 1, sequence.shape[-1])
        return Encoded(
            pooled=self.dropout(sequence.gather(1, last).squeeze(1)),
            sequence=self.dropout(sequence),
            mask=mask,
        )


class MeanTrunk(nn.Module):
    """What the GRU trunk reads, without recurrence: a linear layer and tanh at every state, and the posts' means.

    That is a GRU's candidate state without what it remembers. A GRU knows by the order which post it reads; here each post has a
    linear layer of its own (the rationale, which is made of the response's states, has the response's), and the pair's state is
    the sum of the two means.
    """

    def __init__(self, encoder: PostEncoder, injector: nn.Module, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.injector = injector
        self.width = hidden
        self.seeker = nn.Linear(encoder.width, hidden)
        self.response = nn.Linear(encoder.width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        texts: Texts,
        gold: Tensor | None = None,  # (B, T, L) bool, None where the injector may not see it
    ) -> tuple[Encoded, Tensor | None]:  # and span_logits (B, T, L)
        seeker, response = self.encoder(texts)
        injection: Injection = self.injector(response, texts.response_mask, gold)
        read = torch.cat([response, injection.states.to(response.dtype)], dim=1)  # (B, L + K, D)
        masks = (texts.seeker_mask, torch.cat([texts.response_mask, injection.mask], dim=1))
        # In float32 from the tanh on, as the GRU: under autocast a mean in half precision would lose digits.
        sides = [
            layer(states).float().tanh().masked_fill(~mask[..., None], 0)  # (B, Ls, H), (B, L + K, H)
            for layer, states, mask in zip((self.seeker, self.response), (seeker, read), masks, strict=True)
        ]
        means = [side.sum(1) / mask.sum(1, keepdim=True).clamp(min=1) for side, mask in zip(sides, masks, strict=True)]
        sequence, mask = real_first(torch.cat(sides, dim=1), torch.cat(masks, dim=1))
        return Encoded(self.dropout(means[0] + means[1]), self.dropout(sequence), mask), injection.span_logits


def real_first(
    states: Tensor,  # (B, S, D)
    mask: Tensor,  # (B, S) bool
) -> tuple[Tensor, Tensor]:  # (B, R, D), (B, R) bool: R is the largest number of real states in a row
    """Each row's real states moved to the front in their order, and what is padding in every row cut off."""
    # Stable, or the words would change places.
    order = (~mask).byte().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return states.gather(1, order[..., None].expand(-1, -1, states.shape[-1])), mask.gather(1, order)
