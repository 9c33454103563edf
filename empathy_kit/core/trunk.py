"""The shared trunk: encoder over both posts, rationale injection, packed GRU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from empathy_kit.contracts import Encoded, Injection
from empathy_kit.core.batch import Texts

GROUP = 8
"""Posts an encoder call on the CPU. Padding costs time there, calls do not; on an accelerator it is the other way round."""


class Trunk(nn.Module):
    """Texts -> Encoded, and the injector's span logits on the way.

    The posts of both sides are stacked, so that seeker and response share every encoder call. On a CPU the stack is then cut
    into groups of like length, each padded to its own longest: a bucketed batch still holds short seeker posts beside long
    responses.
    """

    def __init__(self, encoder: nn.Module, injector: nn.Module, *, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.injector = injector
        self.gru = nn.GRU(
            int(encoder.config.hidden_size),  # type: ignore[union-attr,arg-type]
            hidden,
            num_layers=layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)

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
        if ids.device.type == "cpu" and len(ids) > GROUP:
            states = self._encode_in_groups(ids, mask)
        else:
            states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (2B, longest, D)
        seeker, response = torch.split(states, len(texts))
        return seeker[:, : texts.seeker.shape[1]], response[:, : texts.response.shape[1]]

    def _encode_in_groups(self, ids: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1)
        order = lengths.argsort(stable=True)
        # Looked up once: every look-up of its own would bring its own gradient, as large as the whole vocabulary's table.
        words = self.encoder.get_input_embeddings()(ids)  # type: ignore[operator]
        groups = []
        for group in torch.split(order, GROUP):
            longest = int(lengths[group[-1]])
            states = self.encoder(
                inputs_embeds=words.index_select(0, group)[:, :longest], attention_mask=mask[group, :longest].long()
            ).last_hidden_state
            groups.append(F.pad(states, (0, 0, 0, ids.shape[1] - longest)))
        return torch.cat(groups).index_select(0, order.argsort())  # (2B, longest, D)

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
        outputs, last = self.gru(packed)
        sequence, _ = pad_packed_sequence(outputs, batch_first=True, total_length=longest)
        return Encoded(
            pooled=self.dropout(last[-1]),
            sequence=self.dropout(sequence),
            mask=mask.gather(1, front),
        )
