"""`/metrics` for Prometheus: what the bot knows, read when asked."""

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from bot.core.checks import Status
from bot.core.latency import WEEK, WEEKS, latencies
from bot.core.ports import Clock, ImageRepository, Registry, Store
from bot.core.rebuilds import OPEN


class Metrics:
    """Few names, few labels. https://prometheus.io/docs/practices/naming/"""

    def __init__(self, store: Store, registry: Registry, repository: ImageRepository, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._collectors = own = CollectorRegistry()
        requests = Gauge("shipshape_peer_requests_total", "Requests sent to a peer", ["peer"], registry=own)
        requests.labels("registry").set_function(lambda: registry.requests)
        requests.labels("ecr").set_function(lambda: repository.requests)
        self.turns = Counter("shipshape_turns", "Activities received", registry=own)
        self.hooks = Counter("shipshape_hooks", "Azure DevOps events received", ["outcome"], registry=own)
        self.events = Counter("shipshape_ecr_events", "Events of ECR received", ["outcome"], registry=own)
        self._images = Gauge("shipshape_images", "Images by the result of their last check", ["status"], registry=own)
        self._open = Gauge("shipshape_open_rebuilds", "Rebuilds that have not ended", ["state"], registry=own)
        self._reach = Gauge(
            "shipshape_conversations", "Conversations that are told about checks and rebuilds", ["state"], registry=own
        )
        self._latency = Gauge(
            "shipshape_patch_latency_seconds",
            f"From the first sight of a new base to the version in ECR, over {WEEKS} weeks",
            ["quantile"],
            registry=own,
        )
        self._checked = Gauge("shipshape_last_check_timestamp_seconds", "When the last check was done", registry=own)

    async def text(self) -> bytes:
        """The text format. https://prometheus.io/docs/instrumenting/exposition_formats/"""
        found = Tally(verdict.status for _, verdict in (await self._store.latest_verdicts()).values())
        standing = Tally(rebuild.state for rebuild in await self._store.rebuilds(states=OPEN))
        for status in Status:
            self._images.labels(status).set(found[status])
        for state in OPEN:
            self._open.labels(state).set(standing[state])
        reachable, gone = await self._store.reach()
        self._reach.labels("reachable").set(reachable)
        self._reach.labels("gone").set(gone)
        now = self._clock.now()
        self._latency.clear()  # no number is better than an old one
        if took := latencies(await self._store.succeeded(now - WEEKS * WEEK), now):
            self._latency.labels("0.5").set(took.median.total_seconds())
            self._latency.labels("1").set(took.worst.took.total_seconds())
        if latest := await self._store.latest_check():
            self._checked.set(latest.checked_at.timestamp())
        return generate_latest(self._collectors)
