from empathy_kit import Sampler, hookimpl


def past(tasks, labels):
    """Counts from one."""
    import torch

    return lambda generator: torch.arange(len(labels)) + 1


@hookimpl
def empathy_kit_samplers():
    yield Sampler("past", past)
