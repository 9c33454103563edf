from empathy_kit import Loss, hookimpl


def lost(task):
    """Is never offered."""


@hookimpl
def empathy_kit_losses():
    Loss("lost", lost)
