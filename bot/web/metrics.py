"""`/metrics` for Prometheus: what the bot knows, read when asked."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from bot.core.ports import ImageRepository, Registry


class Metrics:
    """Few names, few labels."""

    def __init__(self, registry: Registry, repository: ImageRepository) -> None:
        self._collectors = CollectorRegistry()
        requests = Gauge(
            "shipshape_peer_requests_total", "Requests sent to a peer", ["peer"], registry=self._collectors
        )
        requests.labels("registry").set_function(lambda: registry.requests)
        requests.labels("ecr").set_function(lambda: repository.requests)
        self.turns = Counter("shipshape_turns", "Activities answered", registry=self._collectors)

    def __call__(self) -> bytes:
        """The text format. https://prometheus.io/docs/instrumenting/exposition_formats/"""
        return generate_latest(self._collectors)
