"""How fast activation maps are made: against a plain forward pass, and against grad-cam 1.5.7.

    python -m benchmarks.cam_throughput            # some three minutes; leave the machine alone meanwhile
    python -m benchmarks.cam_throughput --quick    # exercises the code, judges no time

Every way works on the same weights, batch and targets, in turns: of each image the class logit of the strongest anchor
of the finest level, at that level's input to the head (block 16 of YOLO11n) and at the backbone's stage of its stride
(block 4). A plain forward pass computes no gradient. Ratios are medians of those of the rounds.

grad-cam is used with the parameters' gradients on, which a model in training has; `thrifty` among the figures is what
it takes with them off. Its own maps are enlarged to the input's size, which is a small part of its time. EigenCAM needs
no gradient and is compared at block 4.

The model is the BCCD checkpoint where it lies in `../shared`; else YOLO11n with random weights for the times and the
embedded `digits` checkpoint for the maps, which say little without training. On a GPU the times are figures only.

Targets: at most 1.15 times the forward pass at block 16 and 1.45 times at block 4; at least 3.5 times as fast as
grad-cam at block 4, and 50 times for EigenCAM; normalised maps of six methods that differ by less than 1e-4. The ratio
is the one against grad-cam at block 4.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import cam_peer
from benchmarks.cam_peer import Peer, largest_difference, normalised, positive_side
from benchmarks.outcome import Outcome, Target, finish, machine, read_arguments
from benchmarks.pairing import Estimate, paired_ratio
from benchmarks.turns import Times, Work, take_turns
from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.layers import Layers, read_layers
from mlflow_yolo.attribution.maps import map_targets
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.attribution.targets import ClassLogit

BCCD = Path(__file__).resolve().parents[2] / "shared" / "data" / "bccd"
CHECKPOINT = "yolo11n-bccd.pt"
HEAD_INPUT, STAGE = 16, 4
MAX_DIFFERENCE = 1e-4
METHOD = "layercam"


@dataclass(frozen=True, eq=False)
class Case:
    """A model, a batch and its targets.

    Attributes:
        source: Where the weights come from.
        network: The model in evaluation mode.
        layers: Its blocks.
        images: (B, 3, height, width) in [0, 1].
        anchors: Anchor and class of each image's target.
    """

    source: str
    network: nn.Module
    layers: Layers
    images: Tensor
    anchors: Sequence[tuple[int, int]]

    def plain(self) -> None:
        """Run a forward pass that computes no gradient."""
        with torch.no_grad():
            self.network(self.images)

    def maps(self, method: str, block: int) -> Tensor:
        """Return our maps (B, h, w) of the targets."""
        targets = [[ClassLogit(anchor, class_id)] for anchor, class_id in self.anchors]
        found = map_targets(
            self.network, self.images, lambda *_: targets, method=METHODS[method], layers=self.layers, blocks=[block]
        )
        return torch.stack([of[0].values for of in found])


def main() -> int:
    """Measure, print, and return the exit code."""
    quick: bool = read_arguments(__doc__).quick
    imgsz, batch, n_rounds, n_slow = (320, 1, 1, 1) if quick else (640, 4, 8, 3)
    figures: dict[str, Any] = {"quick": quick, "imgsz": imgsz, "batch": batch, "machine": machine()}
    timed, trained = cases(imgsz, batch)
    figures |= {"timed": timed.source, "compared": trained.source}
    times = measure(timed, n_rounds, n_slow)
    figures |= {"cpu": summary(times, batch), **ratios(times)}
    figures["differences"] = differences(trained) if cam_peer.is_installed() else "grad-cam is not installed"
    figures["cuda"] = _cuda_figures(timed, n_rounds, batch) if torch.cuda.is_available() else "not reached: no GPU"
    if not cam_peer.is_installed():
        print("grad-cam is not installed: nothing is compared with it; make bench-install does that")
    promised = targets(times, figures["differences"])
    for name, row in figures["cpu"].items():
        print(f"{row['ms']:9.1f} ms, {row['images_per_s']:7.2f} images/s: {name}")
    if quick:
        return finish(Outcome("cam_throughput", None, None, (), figures))
    headline = promised[2]
    return finish(Outcome("cam_throughput", headline.value, headline.limit, promised, figures))


def cases(imgsz: int, batch: int) -> tuple[Case, Case]:
    """Return what is timed and what maps are compared on: the same where BCCD is there."""
    from ultralytics.nn.tasks import DetectionModel

    from mlflow_yolo import checkpoints
    from mlflow_yolo.datasets.digits import generate

    if (BCCD / CHECKPOINT).is_file():
        case = _case(CHECKPOINT, _load(BCCD / CHECKPOINT), read_batch(BCCD / "images" / "test", imgsz, batch))
        return case, case
    with tempfile.TemporaryDirectory() as folder:
        data = generate("digits", cache_dir=Path(folder), n_train=1, n_val=batch, n_test=1)
        images = read_batch(data.parent / "images" / "val", imgsz, batch)
    torch.manual_seed(0)
    random = DetectionModel("yolo11n.yaml", verbose=False)
    return _case("yolo11n.yaml, seed 0", random, images), _case("digits.pt", _load(checkpoints.path()), images)


def measure(case: Case, n_rounds: int, n_slow: int, wait: Work | None = None) -> dict[str, Times]:
    """Return the times of every way by name; grad-cam's EigenCAM, half a minute a call, has rounds of its own."""
    works: dict[str, Work] = {"forward": case.plain}
    slow: dict[str, Work] = {"ours, eigencam": partial(case.maps, "eigencam", STAGE)}
    for block in (HEAD_INPUT, STAGE):
        works[f"ours, block {block}"] = partial(case.maps, METHOD, block)
    if cam_peer.is_installed():
        usual, thrifty = Peer(case.network), Peer(case.network, thrifty=True)
        for block in (HEAD_INPUT, STAGE):
            works[f"grad-cam, block {block}"] = partial(usual.maps, METHOD, block, case.images, case.anchors)
            works[f"grad-cam, thrifty, block {block}"] = partial(thrifty.maps, METHOD, block, case.images, case.anchors)
        slow["grad-cam, eigencam"] = partial(thrifty.maps, "eigencam", STAGE, case.images, case.anchors)
    return take_turns(works, n_rounds, wait=wait) | take_turns(slow, n_slow, warm_up=False, wait=wait)


def ratio(times: Mapping[str, Times], way: str, base: str, *, cpu: bool = False) -> Estimate | None:
    """Return the median over rounds of the time of `way` / that of `base`; None where one was not measured."""
    if way not in times or base not in times:
        return None
    pair = [times[name].cpu_s if cpu else times[name].wall_s for name in (way, base)]
    return paired_ratio(*pair)


def ratios(times: Mapping[str, Times]) -> dict[str, Any]:
    """Return every ratio that is a target or explains one, by the clock with its interval, and by CPU time."""
    pairs = {
        "forward": [(name, "forward") for name in times if "eigencam" not in name and name != "forward"],
        "ours": [(f"grad-cam, {way}block {b}", f"ours, block {b}") for way in ("", "thrifty, ") for b in (16, 4)],
        "eigencam": [("grad-cam, eigencam", "ours, eigencam")],
    }
    found: dict[str, Any] = {}
    for way, base in (pair for group in pairs.values() for pair in group):
        by_clock, by_cpu = ratio(times, way, base), ratio(times, way, base, cpu=True)
        if by_clock and by_cpu:
            interval = [by_clock.low, by_clock.high]
            found[f"{way} / {base}"] = {"value": by_clock.value, "interval_95": interval, "cpu": by_cpu.value}
    return {"ratios": found}


def targets(times: Mapping[str, Times], found: Mapping[str, float] | str) -> list[Target]:
    """Return every promise with what was measured."""
    stage, head_input = f"ours, block {STAGE}", f"ours, block {HEAD_INPUT}"
    rows = [
        (f"block {HEAD_INPUT} / forward", ratio(times, head_input, "forward"), 1.15, False),
        (f"block {STAGE} / forward", ratio(times, stage, "forward"), 1.45, False),
        (f"faster than grad-cam, block {STAGE}", ratio(times, f"grad-cam, block {STAGE}", stage), 3.5, True),
        ("faster than grad-cam, EigenCAM", ratio(times, "grad-cam, eigencam", "ours, eigencam"), 50.0, True),
    ]
    difference = None if isinstance(found, str) else max(found.values())
    return [
        *(Target(name, value and value.value, limit, at_least=least) for name, value, limit, least in rows),
        Target("largest difference of normalised maps", difference, MAX_DIFFERENCE),
    ]


def differences(case: Case) -> dict[str, float]:
    """Return the largest difference between our normalised maps and grad-cam's, by method and block."""
    peer = Peer(case.network, thrifty=True)
    size = (case.images.shape[2], case.images.shape[3])
    found = {
        f"{method}, block {block}": largest_difference(
            normalised(case.maps(method, block), size), peer.maps(method, block, case.images, case.anchors)
        )
        for method in cam_peer.METHODS
        if METHODS[method].needs_gradient
        for block in (HEAD_INPUT, STAGE)
    }
    theirs = normalised(positive_side(peer.components(STAGE, case.images)), size)
    found[f"eigencam, block {STAGE}"] = largest_difference(normalised(case.maps("eigencam", STAGE), size), theirs)
    return found


def summary(times: Mapping[str, Times], batch: int) -> dict[str, dict[str, float]]:
    """Return milliseconds a batch and images per second of every way, medians over rounds."""
    medians = {name: (statistics.median(t.wall_s), statistics.median(t.cpu_s)) for name, t in times.items()}
    return {
        n: {"ms": 1e3 * wall, "cpu_ms": 1e3 * cpu, "images_per_s": batch / wall} for n, (wall, cpu) in medians.items()
    }


def strongest(logits: Tensor, n_anchors: int) -> list[tuple[int, int]]:
    """Return anchor and class of the highest of the logits (B, C, A) of each image, among the first anchors."""
    flat = logits[:, :, :n_anchors].flatten(1).argmax(1).tolist()
    return [(index % n_anchors, index // n_anchors) for index in flat]


def read_batch(folder: Path, imgsz: int, n: int) -> Tensor:
    """Return the first pictures of a folder, stretched to squares: (n, 3, imgsz, imgsz) in [0, 1], RGB."""
    from PIL import Image

    paths = sorted(folder.glob("*.[jp][pn]g"))[:n]
    pictures = [np.asarray(Image.open(path).convert("RGB").resize((imgsz, imgsz))) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().contiguous() / 255


def _load(path: Path) -> nn.Module:
    from mlflow_yolo.models.checkpoint import load, read_model

    network: nn.Module = load(read_model(str(path)).source).model
    return network


def _case(source: str, network: nn.Module, images: Tensor) -> Case:
    """Choose the targets: of each image the strongest anchor of the finest level."""
    from mlflow_yolo.attribution.outputs import read_outputs

    network = network.float().eval().requires_grad_(False)
    with torch.no_grad():
        outputs = read_outputs(network.model[-1], network(images))  # type: ignore[index]
    assert isinstance(outputs, DetectionOutputs)
    height, width = outputs.sizes[0]
    return Case(source, network, read_layers(network), images, strongest(outputs.logits, height * width))


def _cuda_figures(case: Case, n_rounds: int, batch: int) -> dict[str, Any]:
    """Return the same figures on the GPU; its EigenCAM is left out, which grad-cam computes on the processor."""
    device = torch.device("cuda")
    moved = Case(case.source, case.network.to(device), case.layers, case.images.to(device), case.anchors)
    times = measure(moved, n_rounds, 0, wait=torch.cuda.synchronize)
    kept = {name: t for name, t in times.items() if t.wall_s}
    return {"device": torch.cuda.get_device_name(), "ways": summary(kept, batch), **ratios(kept)}


if __name__ == "__main__":
    sys.exit(main())
