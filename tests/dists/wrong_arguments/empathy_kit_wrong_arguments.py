from empathy_kit import Head, Loss, Rationale, hookimpl


@hookimpl
def empathy_kit_losses(registry):
    yield registry
