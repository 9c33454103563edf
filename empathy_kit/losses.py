"""The kit's exact, fused losses, for authors of losses. Import it where a loss is built: it loads torch."""

from empathy_kit.core.losses.cross_entropy import balanced_weights, cross_entropy
from empathy_kit.core.losses.focal import FocalLoss, focal

__all__ = ["focal", "FocalLoss", "cross_entropy", "balanced_weights"]
