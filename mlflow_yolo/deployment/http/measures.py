"""What a server counts, for Prometheus."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from mlflow_yolo.deployment.inference.backend import Answer, Loaded, Status

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Measures:
    """Counters of one server, in a registry of their own; the backend is asked when they are read."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._backend = _BackendCollector(status)
        self._registry.register(self._backend)
        self._requests = Counter(
            "mlflow_yolo_requests", "Requests answered.", ("path", "code"), registry=self._registry
        )
        self._seconds = self._histogram("request_seconds", "From a request's header to its answer.", ("path",))
        self._queue = self._histogram("queue_seconds", "Time that an image waited.")
        self._compute = self._histogram("compute_seconds", "Decoding, inference and all between, of a batch.")
        self._batch = Histogram(
            "mlflow_yolo_batch_size", "Images computed together.", buckets=_IMAGES, registry=self._registry
        )
        self.held_bytes = Gauge("mlflow_yolo_held_bytes", "Bodies that are in memory.", registry=self._registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(f"mlflow_yolo_{name}", text, labels, buckets=_SECONDS, registry=self._registry)

    def count_request(self, path: str, code: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            path: Route; never what a client wrote, so that there are few.
            code: HTTP status.
            seconds: From its header to its answer.
        """
        self._requests.labels(path, code).inc()
        self._seconds.labels(path).observe(seconds)

    def count_answer(self, answer: Answer) -> None:
        """Count an image that was computed."""
        self._queue.observe(answer.queue_ms / 1000)
        self._compute.observe(answer.compute_ms / 1000)
        self._batch.observe(answer.batch)
        self._backend.see(answer.model)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _BackendCollector(Collector):
    """Which model serves, how often it changed, and what waits."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._model: Loaded | None = None
        self._swaps = 0

    def see(self, model: Loaded) -> None:
        """Count a swap where new requests go to another model than before; late answers of the old one are none."""
        if model is self._model:
            return
        serving = self._status().serving
        self._swaps += self._model is not None and serving != self._model
        self._model = serving

    def collect(self) -> Iterator[Metric]:
        """Yield what is so now."""
        status = self._status()
        self.see(status.serving)
        yield _gauge("queue", "Images that wait.", status.queue)
        yield _gauge("in_flight", "Images that are computed now.", status.in_flight)
        yield _gauge("update_failed", "1 while a newer version is not served.", bool(status.error))
        yield CounterMetricFamily("mlflow_yolo_model_swaps", "Changes of the model seen.", value=self._swaps)
        model = status.serving
        labels = {"name": model.name, "version": model.version, "alias": model.alias, "sha256": model.sha256}
        info = GaugeMetricFamily("mlflow_yolo_model_info", "The model that serves.", labels=[*labels, "kind"])
        info.add_metric([*(value or "" for value in labels.values()), model.kind], 1)
        yield info

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not ask the backend."""
        return []


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mlflow_yolo_{name}", text, value=value)
