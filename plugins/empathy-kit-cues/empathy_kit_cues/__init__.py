"""A rationale injector that learns what evidence looks like, and needs no annotation afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from empathy_kit import KitError, Rationale, Task, hookimpl

if TYPE_CHECKING:
    from torch.nn import Module


def cues(tasks: Sequence[Task], width: int, *, cues: int = 8) -> Module:
    """A few learnt cues per mechanism find its evidence in the response; one summary per mechanism is injected.

    The cues are trained by the kit's span loss, from the annotated spans of the training part; no span is seen otherwise, so
    the injection is made the same way in training and at test. Prototypes as in Snell et al., arXiv 1703.05175, of the
    rationales of Sharma et al., arXiv 2009.08441; neither paper has this injector.

    Raises:
        KitError: fewer than one cue.
    """
    from empathy_kit_cues.injector import CueInjector

    if cues < 1:
        raise KitError(f"rationale cues: option 'cues' is {cues}; expected 1 or more")
    return CueInjector(len(tasks), width, cues)


CUES = Rationale("cues", cues, gold="never")


@hookimpl
def empathy_kit_rationales() -> Iterator[Rationale]:
    """The one injector."""
    yield CUES
