import sys

sys.modules["empathy_kit_absent.accel"] = None
from empathy_kit import Head, Loss, Rationale, hookimpl


def fair(task):
    """Cross-entropy, under another name."""
    from torch.nn.functional import cross_entropy

    return lambda logits, target: cross_entropy(logits, target, reduction="none")


@hookimpl
def empathy_kit_losses():
    yield Loss("absent", fair)
