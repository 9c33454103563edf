from empathy_kit import Encoded, Trunk, hookimpl


def narrow(encoder, injector):
    """Says that it is wider than it is."""
    from torch import nn

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.injector, self.width = encoder, injector, encoder.width + 1

        def forward(self, texts, gold=None):
            response = self.encoder.response(texts)
            injection = self.injector(response, texts.response_mask, gold)
            return Encoded(response[:, 0], response, texts.response_mask), injection.span_logits

    return Narrow()


@hookimpl
def empathy_kit_trunks():
    yield Trunk("narrow", narrow)
