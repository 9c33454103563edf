from empathy_kit import Head, Loss, Rationale, hookimpl


def heavy(tasks, width, *, weight: float = 2.0):
    """Wants the kit's own option."""


@hookimpl
def empathy_kit_rationales():
    yield Rationale("heavy", heavy)
