"""What `/metrics` counts. No label holds anything that a client wrote."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
PAIRS = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """Counters of one server."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter("empathy_kit_requests", "Answered requests", ["path", "status"], registry=self._registry)
        self.seconds = Histogram(
            "empathy_kit_request_seconds", "Seconds until an answer", ["path"], buckets=SECONDS, registry=self._registry
        )
        self.pairs = Counter("empathy_kit_pairs", "Predicted pairs", registry=self._registry)
        self.gone = Counter("empathy_kit_abandoned", "Requests whose client left before the answer", registry=self._registry)
        self._batch_pairs = Histogram("empathy_kit_batch_pairs", "Pairs per batch", buckets=PAIRS, registry=self._registry)
        self._batch_seconds = Histogram(
            "empathy_kit_batch_seconds", "Seconds that the model took for a batch", buckets=SECONDS, registry=self._registry
        )
        Gauge("empathy_kit_waiting_pairs", "Pairs that wait for the model", registry=self._registry).set_function(waiting)

    def batch(self, pairs: int, seconds: float) -> None:
        """Count a batch."""
        self.pairs.inc(pairs)
        self._batch_pairs.observe(pairs)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
