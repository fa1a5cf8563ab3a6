"""The command `compress`: the whole chain on one checkpoint, and one table at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.compression.quantization.calibration import CalibrationSet, choose_calibration
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variants.comparison import Comparison, Effort, Entry, compare, distinct, entry_of
from mlflow_yolo.variants.convert import calibration_params, check_method, log_parity
from mlflow_yolo.variants.exactness import check_parity
from mlflow_yolo.variants.fine_tuning import FineTuning
from mlflow_yolo.variants.making import BASE, FLOAT_KINDS, INT8_KINDS, Orders, make_variant, missing_extra, parse_kinds
from mlflow_yolo.variants.origins import further_tags, teacher_tags
from mlflow_yolo.variants.prune import Pruned, distillation_of, lineage, prune_and_train, record_sentence
from mlflow_yolo.variants.pruning_order import PruningOrder
from mlflow_yolo.variants.records import write_records
from mlflow_yolo.variants.results import log_results, write_results
from mlflow_yolo.variants.subject import Subject, check_size, read_subject
from mlflow_yolo.variants.table import terminal_text
from mlflow_yolo.variants.workplace import Workplace, workplace

KINDS = (*FLOAT_KINDS, *INT8_KINDS)
PRUNED_KINDS = ("fp32-onnx", "int8-onnx", "bf16-openvino", "int8-openvino")
"""What is made of the pruned checkpoint: float to see what pruning alone gives, and the kinds that are fast."""

FOLDER = "variants"


@dataclass(frozen=True)
class Chain:
    """What is made.

    Attributes:
        kinds: Kinds of the checkpoint itself, `fp32-onnx` among them.
        pruning: How it is pruned, None for not at all.
        training: How the pruned checkpoint is trained on.
        control: Whether the unpruned checkpoint is trained on for as long, to compare with.
        teacher: What the pruned checkpoint learns from, None for the labels alone.
        sizes: Smaller input sizes at which the checkpoint is exported as well, pixels.
        also: Other checkpoints that join the table, by path.
        method: How activation ranges are found.
        calibration: Images to calibrate on.
        max_drop: Largest loss on val that int8 may cost, in hundredths of the headline value.
    """

    kinds: tuple[str, ...]
    pruning: PruningOrder | None
    training: FineTuning
    control: bool = False
    teacher: str | None = None
    sizes: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    method: str = "auto"
    calibration: int = 200
    max_drop: float = 0.5


@dataclass(frozen=True, eq=False)
class Compressed:
    """What came of a chain.

    Attributes:
        comparison: Every variant, measured.
        pruned: What pruning made, None where nothing was pruned.
        directory: The folder it lies in.
    """

    comparison: Comparison
    pruned: Pruned | None
    directory: Path

    @property
    def text(self) -> str:
        """The lines to print."""
        parts = [record_sentence(self.pruned.record)] if self.pruned else []
        return "\n\n".join([*parts, terminal_text(self.comparison), f"variants: {self.directory / FOLDER}"])


def run_compress(
    *,
    data: str,
    model: str,
    chain: Chain,
    split: str,
    imgsz: int | None,
    trust: bool,
    effort: Effort,
    tracking: Target,
    output: str | None,
) -> Compressed:
    """Make every variant of a checkpoint, measure all of them, keep it in runs, and return what came of it.

    Args:
        data: As for a training: calibrated and fine-tuned on train, chosen on val, reported on `split`.
        model: A checkpoint.
        chain: What is made.
        split: Of the scores.
        imgsz: Side of the input, None for the one the model was trained with.
        trust: Load a checkpoint that names foreign classes.
        effort: How thoroughly costs are measured.
        tracking: Where the runs go.
        output: The folder, None for a new one below `runs`. The same command on the same folder goes on.

    Raises:
        InputError: Something in the input cannot work; nothing has been written.
    """
    chain.training.check()
    effort.check()
    check_method(chain.method, chain.max_drop)
    subject = read_subject(model, data, split=split, imgsz=imgsz, trust=trust)
    others = [read_subject(path, data, split=split, imgsz=imgsz, trust=trust) for path in chain.also]
    smaller = [replace(subject, imgsz=check_size(size, task=subject.model.task)) for size in chain.sizes]
    distillation = distillation_of(chain.teacher, subject, trust=trust)
    chosen = choose_calibration(subject.dataset, n=chain.calibration, seed=chain.training.seed)
    orders = Orders(subject, chosen, method=chain.method, max_drop=chain.max_drop / 100)
    with workplace("compress", output, subject, _question(chain, chosen), tracking) as place, Stages() as stages:
        entries = [Entry(subject.checkpoint.name, subject.checkpoint, subject.imgsz)]
        entries += _variants(orders, chain.kinds, place, stages, prefix="")
        log_parity(place, check_parity(subject, place.directory / FOLDER / BASE))
        more = {f"{one.imgsz}px-": one for one in smaller} | {f"{_stem(one, others)}-": one for one in others}
        for prefix, one in more.items():
            entries += _variants(replace(orders, subject=one), (BASE,), place, stages, prefix=prefix)
        pruned = _pruned(subject, chain, place, stages, distillation)
        taught = {"distillation": teacher_tags(distillation)} if distillation else {}
        thin = _pruned_entries(replace(orders, sources=taught), pruned, chain, place, stages) if pruned else []
        entries = distinct([*entries, *thin, *(_control_entries(orders, pruned, place, stages) if pruned else [])])
        comparison = compare(
            entries, subject.dataset, subject.split, effort=effort, directory=place.directory, stages=stages
        )
        folder = write_results(comparison, place.directory)
        paths = {entry.path for entry in thin}
        tags = {entry.name: lineage(pruned.record) for entry in entries if pruned and entry.path in paths}
        checkpoints = [subject.checkpoint, *(one.checkpoint for one in others), *(_made(pruned) if pruned else [])]
        further = further_tags(entries, checkpoints)
        further = {name: {**found, **tags.get(name, {})} for name, found in further.items()}
        log_results(place.run, comparison, folder, tracking, lineage=further)
        write_records(comparison, place.directory, command="compress", checkpoints=checkpoints, more=further)
    return Compressed(comparison, pruned, place.directory)


def default_kinds() -> tuple[str, ...]:
    """Return every kind that can be made with what is installed."""
    return tuple(kind for kind in KINDS if not missing_extra(kind))


def read_kinds(text: str | None) -> tuple[str, ...]:
    """Return the kinds a user named, `fp32-onnx` always among them; None for all that can be made."""
    if text is None:
        return default_kinds()
    return tuple(dict.fromkeys([BASE, *parse_kinds(text, KINDS, argument="kinds")]))


def read_sizes(text: str | None) -> tuple[int, ...]:
    """Return the input sizes of a comma-separated list.

    Raises:
        ArgumentError: One is no size.
    """
    sizes = []
    for word in filter(None, (part.strip() for part in (text or "").split(","))):
        if not word.isdigit():
            raise ArgumentError(f"sizes={word} is not a whole number of pixels. Use for example sizes=256,224.")
        sizes.append(int(word))
    return tuple(dict.fromkeys(sizes))


def _question(chain: Chain, chosen: CalibrationSet) -> dict[str, object]:
    return {
        "kinds": ",".join(chain.kinds),
        **(chain.pruning.question if chain.pruning else {"ratio": 0}),
        **chain.training.question,
        "control": chain.control,
        "teacher": chain.teacher or "",
        "sizes": ",".join(map(str, chain.sizes)),
        "also": ",".join(Path(path).name for path in chain.also),
        "calibration_method": chain.method,
        "max_drop": chain.max_drop,
        **calibration_params(chosen),
    }


def _variants(orders: Orders, kinds: tuple[str, ...], place: Workplace, stages: Stages, *, prefix: str) -> list[Entry]:
    """Make the kinds of one checkpoint, below `variants`, and return their entries."""
    count = stages.count(f"{prefix}variants", unit="variant")
    base = place.directory / FOLDER / f"{prefix}{BASE}"
    entries = []
    for done, kind in enumerate(dict.fromkeys([BASE, *kinds]), start=1):
        folder = make_variant(kind, place.directory / FOLDER / f"{prefix}{kind}", orders, base=base)
        entries.append(entry_of(folder))
        count(done, len({BASE, *kinds}))
    return entries


def _pruned(
    subject: Subject, chain: Chain, place: Workplace, stages: Stages, distillation: Distillation | None
) -> Pruned | None:
    if chain.pruning is None:
        return None
    return prune_and_train(
        subject,
        chain.pruning,
        chain.training,
        place=place,
        stages=stages,
        distillation=distillation,
        control=chain.control,
    )


def _pruned_entries(orders: Orders, pruned: Pruned, chain: Chain, place: Workplace, stages: Stages) -> list[Entry]:
    """Return the entries of the pruned checkpoint and of its variants."""
    subject = orders.subject
    kinds = tuple(kind for kind in PRUNED_KINDS if kind in chain.kinds)
    entries = [Entry(pruned.checkpoint.name, pruned.checkpoint, subject.imgsz)]
    entries += _variants(
        replace(
            orders,
            subject=subject.of(pruned.checkpoint),
            sources={**(orders.sources or {}), "pruning": lineage(pruned.record)},
        ),
        kinds,
        place,
        stages,
        prefix="pruned-",
    )
    return entries


def _made(pruned: Pruned) -> list[Path]:
    """Return the checkpoints that pruning made and variants come from."""
    return [pruned.checkpoint, *([pruned.control] if pruned.control else [])]


def _control_entries(orders: Orders, pruned: Pruned, place: Workplace, stages: Stages) -> list[Entry]:
    """Return the entry of the unpruned checkpoint that was trained on for as long, if one was."""
    if pruned.control is None:
        return []
    trained = replace(orders, subject=orders.subject.of(pruned.control))
    return _variants(trained, (BASE,), place, stages, prefix="control-")


def _stem(subject: Subject, others: Sequence[Subject]) -> str:
    """Return what another checkpoint's variants begin with: its file's name, with its digest where others share it."""
    stem = subject.checkpoint.stem
    shared = [one.checkpoint.stem for one in others].count(stem) > 1 or stem in ("pruned", "control")
    return f"{stem}-{subject.model.sha256[:6]}" if shared else stem
