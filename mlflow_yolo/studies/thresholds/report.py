"""What is said of an operating point: sentences and tables for the terminal and the run's note."""

import math

from mlflow_yolo.detection.class_thresholds import FULL_TRUST
from mlflow_yolo.detection.operating_assessment import Interval
from mlflow_yolo.figures.table import markdown_table, text_table
from mlflow_yolo.studies.thresholds.recommendation import CLASSES, COMMON, DEFAULT
from mlflow_yolo.studies.thresholds.result import Result, class_table, point_rows
from mlflow_yolo.studies.thresholds.subject import CHOOSING_SPLIT

FOLDER = "thresholds"
WHY_NOT_MAP = (
    "mAP is shown and never used for the choice: it is an average over all confidences, which a threshold can only cut "
    "off, so that the lowest one always wins."
)
_MOST_ROWS, _MOST_NAMED = 20, 8


def sentences(result: Result) -> list[str]:
    """Return the result: what to ship, what it is worth, whether classes differ, and what must be known beside it."""
    lines = [_recommended(result), _worth(result), _classes(result), *_remarks(result), WHY_NOT_MAP]
    return [line for line in lines if line]


def terminal_text(result: Result) -> str:
    """Return the lines to print."""
    columns, rows = _points(result)
    parts = ["\n".join(sentences(result)), text_table(columns, rows)] if rows else ["\n".join(sentences(result))]
    if result.found.ships_per_class:
        parts.append(text_table(*_class_rows(result)))
    return "\n\n".join(parts)


def note(result: Result) -> str:
    """Return the run's note."""
    columns, rows = _points(result)
    measured = f"On {result.measured_on}; in brackets 95 % intervals of a bootstrap over images."
    files = (
        f"Take `{FOLDER}/operating_point.json`. Every threshold: `{FOLDER}/surface.html`, `{FOLDER}/table.csv`; "
        f"classes: `{FOLDER}/per_class.csv`."
    )
    return "\n\n".join(
        [
            "\n".join(sentences(result)),
            *([markdown_table(columns, rows), measured] if rows else []),
            markdown_table(*_class_rows(result)),
            files,
        ]
    )


def measure_label(name: str, result: Result) -> str:
    """Return how a measure is written, with its unit."""
    weighing = result.question.objective.weighing
    return {
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "f_beta": f"F{weighing.beta:g}",
        "mAP50": "mAP50 (not for choosing)",
        "mAP50-95": "mAP50-95 (not for choosing)",
        "cost": f"cost/image ({weighing.c_fp:g} FP, {weighing.c_fn:g} FN)",
        "detections": "detections/image",
    }[name]


def _recommended(result: Result) -> str:
    found, objective = result.found, result.question.objective
    choice, where = found.choice, f"{CHOOSING_SPLIT} ({result.n_images[0]} images)"
    word = "lowest" if objective.sign < 0 else "best"
    if found.ships_per_class:
        return (
            f"Ship IoU {result.iou:g} and a conf for each class: {_confs(result)}. {word.capitalize()} "
            f"{objective.label} on {where}: {found.by_class.value:.3f}; with one conf for all, {choice.conf:g}, it is "
            f"{choice.best.value:.3f}."
        )
    reached = f"{choice.best.value:.3f}"
    if objective.bound is not None:
        reached = f"{objective.measure} {choice.best.value:.3f} at {objective.bounded} {choice.best.bounded:.3f}"
    if not choice.best.feasible:
        return (
            f"No threshold reaches {objective.bounded} {objective.bound:g} on {where}: conf {choice.conf:g} and IoU "
            f"{choice.iou:g} come nearest, with {reached}."
        )
    return f"Ship conf {choice.conf:g} and IoU {choice.iou:g}: {word} {objective.label} on {where}: {reached}."


def _confs(result: Result) -> str:
    classes = result.found.by_class.classes
    if len(classes) > _MOST_NAMED:
        return f"{len(classes)} of them, in operating_point.json"
    return ", ".join(f"{result.subject.names[one.class_id]} {one.conf:g}" for one in classes)


def _worth(result: Result) -> str:
    reported, objective = result.found.reported, result.question.objective
    if reported is None:
        return f"{CHOOSING_SPLIT} has one image, so nothing is known of others: label more."
    shipped = reported[result.found.shipped]
    own = shipped.measured[objective.measure]
    name = measure_label(objective.measure, result)
    where = f"On {result.measured_on} ({result.n_images[1]} images, none of which it was chosen on)"
    says = f"{where}: {name} {_interval(own)}"
    if objective.bound is not None:
        bounded = shipped.measured[objective.bounded]
        below = f", below the {objective.bound:g} asked for" if bounded.value < objective.bound else ""
        says += f", {objective.bounded} {_interval(bounded)}{below}"
    return f"{says}. {_change(result)}"


def _change(result: Result) -> str:
    reported, objective = result.found.reported or {}, result.question.objective
    change = reported[result.found.shipped].change
    assert change is not None
    against = f"Ultralytics' own conf 0.25 and IoU 0.7 ({reported[DEFAULT].measured[objective.measure].value:.3f})"
    if reported[result.found.shipped].is_better(objective):
        return f"That is better than {against} by {_interval(_turned(change, objective.sign))}."
    worse = change.high < 0 if objective.sign > 0 else change.low > 0
    if worse and objective.bound is None:
        loss = _interval(_turned(change, -objective.sign))
        return f"That is worse than {against} by {loss}: keep those, or choose on more images."
    if worse:
        return f"{objective.measure.capitalize()} of {against} is higher: that is what {objective.bounded} costs."
    return f"No difference to {against} is shown (n={result.n_images[1]}): {_interval(change, signed=True)}."


def _classes(result: Result) -> str:
    if len(result.subject.names) < 2:
        return ""
    cross = result.found.cross
    if cross is None:
        return ""
    name = measure_label(result.question.objective.measure, result)
    values = f"{cross[CLASSES].measured[result.question.objective.measure].value:.3f} against "
    values += f"{cross[COMMON].measured[result.question.objective.measure].value:.3f}"
    if result.question.per_class != "auto":
        used = "are recommended, as asked" if result.found.ships_per_class else "are left out, as asked"
        return f"Thresholds for single classes {used}; cross-fitted on {CHOOSING_SPLIT} they have {name} {values}."
    if result.found.ships_per_class:
        where = f"cross-fitted on {CHOOSING_SPLIT} ({name} {values})"
        return f"A threshold for each class is better, {where}: it is recommended."
    return (
        f"A threshold for each class is not shown to be better than one for all, cross-fitted on {CHOOSING_SPLIT} "
        f"({name} {values}): one is recommended."
    )


def _remarks(result: Result) -> list[str]:
    found, question = result.found, result.question
    lines: list[str] = []
    if result.nms == "none":
        lines.append("IoU has no effect on this model: its head suppresses by itself.")
    elif len(question.ious) > 1 and result.iou in (question.ious[0], question.ious[-1]):
        lines.append(f"IoU {result.iou:g} is the end of what was looked at: widen iou to look beyond.")
    if len(found.surface.values["detections"]) and not found.surface.values["detections"].any():
        lines.append(f"Nothing was detected above conf {question.span[0]:g}: every threshold is as good as another.")
    elif not found.ships_per_class and result.conf in question.span and question.span[0] < question.span[1]:
        lines.append(f"Conf {result.conf:g} is the end of what was looked at: widen conf to look beyond.")
    if found.ships_per_class and result.nms == "agnostic":
        lines.append("Classes suppress each other here, so thresholds for single classes are not exact.")
    if found.ships_per_class and found.n_full:
        lines.append(
            f"{found.n_full} images have max_det={result.max_det} detections: there thresholds for single classes may "
            "let more through than was counted."
        )
    few = [one for one in found.by_class.classes if one.own is not None and one.n_objects < FULL_TRUST]
    if found.ships_per_class and few:
        lines.append(
            f"{len(few)} classes have fewer than {FULL_TRUST} objects: theirs are drawn towards the common one."
        )
    return lines


def _points(result: Result) -> tuple[list[str], list[list[object]]]:
    measure = result.question.objective.measure
    names = list(dict.fromkeys([measure, "precision", "recall", "f1", "cost", "detections"]))
    columns = ["point", "conf", "IoU", *(measure_label(name, result) for name in names), "change"]
    rows: list[list[object]] = []
    for row in point_rows(result):
        conf = "by class" if row["point"] == CLASSES else f"{row['conf']:g}"
        cells = [_interval(row["measured"][name]) if name == measure else row["measured"][name].value for name in names]
        change = None if row["change"] is None else _interval(row["change"], signed=True)
        rows.append([row["point"], conf, f"{row['iou']:g}", *cells, change])
    return columns, rows


def _class_rows(result: Result) -> tuple[list[str], list[list[object]]]:
    """Return the classes; of more than 20 those whose own threshold lies farthest from the common one."""
    frame = class_table(result)
    if len(frame) > _MOST_ROWS:
        far = (frame["conf"] - frame["conf_common"]).abs().sort_values(ascending=False, kind="stable")
        frame = frame.loc[sorted(far.index[:_MOST_ROWS])]
    columns = ["class", "n_objects", "conf_own", "conf", "f1_common", "f1_own"]
    heads = ["class", f"objects on {CHOOSING_SPLIT}", "best conf", "conf", "F1, one threshold", "F1, its own"]
    return heads, frame[columns].to_numpy(dtype=object).tolist()


def _interval(one: Interval, *, signed: bool = False) -> str:
    if math.isnan(one.low):
        return f"{one.value:.3f}"
    sign = "+" if signed else ""
    return f"{one.value:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"


def _turned(one: Interval, sign: float) -> Interval:
    return one if sign > 0 else Interval(-one.value, -one.high, -one.low)
