"""What a trunk is built with, without a pretrained model: a post encoder, rationale injectors, and pairs to read."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empathy_kit.contracts import Injection, Texts
from empathy_kit.testing.world import seeded

WIDTH = 16
WORDS = 50
SEEKERS = (5, 1, 3, 2)  # tokens per post
RESPONSES = (4, 6, 1, 2)
LONGEST = 64  # tokens that a run's posts may have, unless its `max_tokens` says otherwise
TASKS = 3


class PostEncoder(nn.Module):
    """The interface of the kit's post encoder: an embedding and a linear layer on each token, zeros at the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        return self.seeker(texts), self.response(texts)

    def seeker(self, texts: Texts) -> Tensor:  # (B, Ls, D)
        """States of the seeker posts alone."""
        return self._states(texts.seeker, texts.seeker_mask)

    def response(self, texts: Texts) -> Tensor:  # (B, L, D)
        """States of the responses alone."""
        return self._states(texts.response, texts.response_mask)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(self.linear(self.embedding(ids))) * mask[..., None]

    def copy(self, *, frozen: bool = False) -> PostEncoder:
        """An independent one with the same weights; a frozen one is never trained."""
        return copy.deepcopy(self).requires_grad_(not frozen)


class Summaries(nn.Module):
    """Injects one state per task, a mean of the response weighted by predicted spans. Gold makes no difference to it."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = nn.Linear(WIDTH, TASKS)

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        spans = self.spans(response).transpose(1, 2)  # (B, T, L)
        weights = spans.masked_fill(~mask[:, None], -torch.inf).softmax(-1).to(response.dtype)
        return Injection(weights @ response, mask[:, :1].expand(-1, TASKS), spans)


class Marked(nn.Module):
    """Injects the states of the tokens inside gold spans, where it is shown any."""

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        if gold is None:
            return Injection(response[:, :0], mask[:, :0])
        return Injection(response, gold.any(1) & mask)


class Scripted(nn.Module):
    """Injects what it is told to, and remembers what it was called with."""

    def __init__(self, states: Tensor, mask: Tensor, spans: Tensor | None = None) -> None:
        super().__init__()
        self.injection = Injection(states, mask, spans)
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        self.seen.append((response, mask, gold))
        return self.injection


def pairs(rows: range | list[int] | None = None, *, more: int = 0, longest: int = 0) -> tuple[Texts, Tensor]:
    """Some pairs, padded to the longest and a few positions more, with their gold spans (B, T, L).

    The first response has evidence for two tasks, the second for one, the others none. The first pair's posts may be made longer.
    """
    rows = range(len(SEEKERS)) if rows is None else rows
    sizes = ((max(first, longest), *others) for first, *others in (SEEKERS, RESPONSES))
    seekers, responses = ([lengths[row] for row in rows] for lengths in sizes)
    gold = torch.zeros(len(rows), TASKS, max(responses) + more, dtype=torch.bool)
    for at, row in enumerate(rows):
        if row == 0:
            gold[at, 0, 1:3] = gold[at, 2, 2:4] = True
        elif row == 1:
            gold[at, 1, 0] = True
    posts = (_posts(rows, lengths, side, more) for side, lengths in enumerate((seekers, responses)))
    (seeker, seeker_mask), (response, response_mask) = posts
    return Texts(seeker, seeker_mask, response, response_mask), gold


def _posts(rows: range | list[int], lengths: list[int], side: int, more: int) -> tuple[Tensor, Tensor]:
    longest = max(lengths) + more
    ids = [
        F.pad(torch.randint(1, WORDS, (length,), generator=seeded(10 * row + side)), (0, longest - length))
        for row, length in zip(rows, lengths, strict=True)
    ]
    return torch.stack(ids), torch.arange(longest) < torch.tensor(lengths)[:, None]
