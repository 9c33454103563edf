from empathy_kit import Loss, hookimpl


def build(task):
    """Cannot be a name in any code."""


@hookimpl
def empathy_kit_losses():
    yield Loss("lambda", build)
