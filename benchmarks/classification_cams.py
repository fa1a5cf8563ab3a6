"""What the maps of all classes of a classifier cost: the closed form against one backward pass for each class.

    python -m benchmarks.classification_cams            # under a minute
    python -m benchmarks.classification_cams --quick    # exercises the code, judges no time

YOLO11n-cls with 100 classes and random weights, 16 images of 224 px, all 1600 maps. Ways, in turns:

    forward         a plain forward pass: no map
    closed form     a forward pass that keeps the features, then one product with the weights of the last layer
    backward each   a forward pass whose graph begins at the same features, then for each class one backward pass for
                    all images at once, and gradient times activation: the least that a gradient can cost, since it
                    goes through a mean and a linear layer only

Both give the same maps, in logits: compared are all of them, and their sums over places with the logits. `alone` is
what a way takes beyond the forward pass, measured in itself and not as a difference.

Targets, ours: the closed form takes at most 1.05 times the forward pass; its maps alone are at least 10 times as fast
as those by gradients; maps and logits differ by at most 1e-5 of the largest. The ratio is the first.
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.outcome import Outcome, Target, finish, machine, read_arguments
from benchmarks.pairing import Estimate, paired_ratio
from benchmarks.turns import Times, Work, take_turns
from mlflow_yolo.attribution.cam import hires_cam
from mlflow_yolo.attribution.capture import at_rest
from mlflow_yolo.attribution.class_maps import watch_classifier

MAX_FORWARDS, LEAST_SPEED_UP, MAX_DIFFERENCE = 1.05, 10.0, 1e-5


@dataclass(frozen=True, eq=False)
class Case:
    """A classifier and a batch.

    Attributes:
        network: The model in evaluation mode.
        images: (B, 3, height, width) in [0, 1].
    """

    network: nn.Module
    images: Tensor

    @property
    def head(self) -> Any:
        """The model's last block."""
        return self.network.model[-1]  # type: ignore[index]

    def logits(self) -> Tensor:
        """Return the logits (B, C) of a plain forward pass."""
        with torch.no_grad():
            return self.network(self.images)[1]

    def closed_form(self) -> Tensor:
        """Return the maps (B, C, h, w) of all classes, without a gradient."""
        with torch.no_grad(), watch_classifier(self.network) as seen:
            self.network(self.images)
            return seen.maps()

    def backward_each(self) -> Tensor:
        """Return the same maps by one backward pass for each class."""
        features, logits = self.graph()
        return gradient_maps(features, logits)

    def graph(self) -> tuple[Tensor, Tensor]:
        """Return features (B, K, h, w) and the logits (B, C) that hang on them, and on nothing before."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle = self.head.conv.register_forward_hook(keep)
        try:
            with at_rest(self.network):
                logits = self.network(self.images)[1]
        finally:
            handle.remove()
        return kept[0], logits


def gradient_maps(features: Tensor, logits: Tensor) -> Tensor:
    """Return gradient times activation, summed over channels, of every class: (B, C, h, w)."""
    maps = []
    for class_id in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, class_id].sum(), features, retain_graph=True)
        maps.append(hires_cam(features.detach(), gradient))
    return torch.stack(maps, dim=1)


def main() -> int:
    """Measure, print, and return the exit code."""
    quick: bool = read_arguments(__doc__).quick
    n_classes, batch, imgsz, n_rounds = (10, 2, 64, 1) if quick else (100, 16, 224, 8)
    figures: dict[str, Any] = {"quick": quick, "classes": n_classes, "batch": batch, "imgsz": imgsz}
    figures["machine"] = machine()
    made = case(n_classes, batch, imgsz)
    found = differences(made)
    figures |= {"differences": found, "cpu": (on_cpu := measure(made, n_rounds))}
    if torch.cuda.is_available():
        device = torch.device("cuda")
        moved = Case(made.network.to(device), made.images.to(device))
        figures["cuda"] = {"device": torch.cuda.get_device_name(), **measure(moved, n_rounds, torch.cuda.synchronize)}
    else:
        figures["cuda"] = "not reached: no GPU"
    for name, ms in on_cpu["ms"].items():
        print(f"{ms:9.2f} ms: {name}")
    if quick:
        return finish(Outcome("classification_cams", None, None, (), figures))
    promised = targets(on_cpu, found)
    return finish(Outcome("classification_cams", promised[0].value, promised[0].limit, promised, figures))


def case(n_classes: int, batch: int, imgsz: int) -> Case:
    """Return a classifier with random weights and a batch of random pictures, the same ones every time."""
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    network = ClassificationModel("yolo11n-cls.yaml", nc=n_classes, verbose=False).eval().requires_grad_(False)
    return Case(network, torch.rand(batch, 3, imgsz, imgsz))


def measure(made: Case, n_rounds: int, wait: Work | None = None) -> dict[str, Any]:
    """Return milliseconds of every way, and the ratios with their intervals."""
    times = take_turns(_works(made), n_rounds, wait=wait)
    pairs = {
        "closed form / forward": ("closed form", "forward"),
        "backward each / forward": ("backward each", "forward"),
        "backward each / closed form": ("backward each", "closed form"),
        "backward each / closed form, alone": ("backward each, alone", "closed form, alone"),
    }
    return {
        "ms": {name: 1e3 * statistics.median(t.wall_s) for name, t in times.items()},
        "ratios": {name: _row(times, *pair) for name, pair in pairs.items()},
    }


def differences(made: Case) -> dict[str, float]:
    """Return how far the two ways are apart, and the sums of the maps from the logits, as shares of the largest."""
    exact, logits = made.closed_form(), made.logits()
    return {
        "closed form, backward each": relative_difference(exact, made.backward_each()),
        "closed form, logits": relative_difference(exact.sum((2, 3)) + made.head.linear.bias, logits),
    }


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected magnitude; infinite where that is 0."""
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / largest if largest else float("inf")


def targets(measured: Mapping[str, Any], found: Mapping[str, float]) -> list[Target]:
    """Return every promise with what was measured."""
    value = {name: row["value"] for name, row in measured["ratios"].items()}
    speed_up = value["backward each / closed form, alone"]
    return [
        Target("forward and all maps in closed form / forward", value["closed form / forward"], MAX_FORWARDS),
        Target("maps alone, faster than one backward each", speed_up, LEAST_SPEED_UP, at_least=True),
        *(Target(f"relative difference: {name}", difference, MAX_DIFFERENCE) for name, difference in found.items()),
    ]


def _works(made: Case) -> dict[str, Work]:
    with torch.no_grad(), watch_classifier(made.network) as seen:
        made.network(made.images)
    features, logits = made.graph()
    works: dict[str, Callable[[], object]] = {
        "forward": made.logits,
        "closed form": made.closed_form,
        "backward each": made.backward_each,
        "closed form, alone": seen.maps,
        "backward each, alone": lambda: gradient_maps(features, logits),
    }
    return works


def _row(times: Mapping[str, Times], way: str, base: str) -> dict[str, Any]:
    estimate: Estimate = paired_ratio(times[way].wall_s, times[base].wall_s)
    by_cpu = paired_ratio(times[way].cpu_s, times[base].cpu_s)
    return {"value": estimate.value, "interval_95": [estimate.low, estimate.high], "cpu": by_cpu.value}


if __name__ == "__main__":
    sys.exit(main())
