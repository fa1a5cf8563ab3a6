"""What can be said of a deployment on Ray Serve, as `-C key=value`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlflow_yolo.exceptions import ArgumentError

_ROUTE = re.compile(r"/|(/[A-Za-z0-9][A-Za-z0-9_.-]*)+")


@dataclass(frozen=True)
class RayOptions:
    """How a model is deployed on a cluster.

    Attributes:
        address: The cluster: `auto`, `host:port` or `ray://host:port`.
        host: Where Serve's proxies listen on each node; taken by the first deployment of a cluster.
        port: Their port.
        route: Path before `/predict`; empty for `/<name>`.
        min_replicas: Replicas that are always there.
        max_replicas: Largest number of replicas.
        target_ongoing_requests: Requests of one replica, waiting and computed, above which Serve adds another.
        num_cpus: Processors of a replica; it computes as many images at once, at least one.
        threads: Threads of one inference.
        max_queue: Images that may wait in a replica; more are answered with 429.
        timeout_s: How long an image may wait.
        poll_s: Time between two looks at the alias.
        wait_s: How long `create` and `update` wait for the replicas.

    Raises:
        ArgumentError: A value is out of its range.
    """

    address: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    route: str = ""
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    num_cpus: float = 1.0
    threads: int = 1
    max_queue: int = 64
    timeout_s: float = 30.0
    poll_s: float = 5.0
    wait_s: float = 120.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and not value > 0:
                raise ArgumentError(f"{field.name}={value} serves nobody. Use more than 0.")
        if self.max_replicas < self.min_replicas:
            raise ArgumentError(
                f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}. Raise it."
            )
        if self.address == "local":
            raise ArgumentError("address=local is a cluster that ends with this command. Use auto or ray://host:10001.")
        if self.port > 65535:
            raise ArgumentError(f"port={self.port} is no port. Use 1 to 65535.")
        if self.route and not _ROUTE.fullmatch(self.route):
            raise ArgumentError(f"route={self.route} is no path. Begin it with / and do not end it with one.")

    @property
    def workers(self) -> int:
        """Images that a replica computes at once."""
        return max(1, int(self.num_cpus))


def read_ray_options(config: Mapping[str, Any]) -> RayOptions:
    """Return the options among texts or numbers.

    Raises:
        ArgumentError: One is not known, is no number where one is needed, or is out of its range.
    """
    kinds: dict[str, type] = {field.name: type(field.default) for field in fields(RayOptions)}
    values = {}
    for name, value in config.items():
        if name not in kinds:
            raise ArgumentError(f"{name}={value} is no option of backend=ray. Use {', '.join(sorted(kinds))}.")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise ArgumentError(f"{name}={value} is no number of the kind {kinds[name].__name__}. Use one.") from None
    return RayOptions(**values)
