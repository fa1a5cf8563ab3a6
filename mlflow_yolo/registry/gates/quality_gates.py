"""Gates on what the model finds, all computed again from the stored predictions."""

from dataclasses import replace

import numpy as np

from mlflow_yolo.detection.bootstrap import Difference, bootstrap_map, bootstrap_mean
from mlflow_yolo.detection.boxes import Floats, Ints
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.registry.gates.evidence import Evidence, Subject
from mlflow_yolo.registry.gates.gate import Verdict, reaches
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.runtime.accuracy import Accuracy, agreement_with, difference
from mlflow_yolo.runtime.parity import MAX_BOX_PX, MAX_SCORE

LEAST_OBJECTS = 30
"""Objects from which a class decides by itself: one object that is lost there costs at most 1/30 of its score, about
the default limit. Rarer classes decide together, weighted by their objects, where they have as many in all."""

_REMEASURE = "Measure both on the same data: --rebenchmark --data <data.yaml>."


def parity(evidence: Evidence, limits: Limits) -> Verdict:
    """Does it answer as what it was made from: in numbers for a float32 export, in detections for any other kind?"""
    if evidence.candidate.variant.kind.startswith("fp32"):
        return _numeric_parity(evidence.candidate)
    found = agreement_with(evidence.candidate.parent_accuracy, evidence.candidate.accuracy)
    passed = reaches(found, limits.min_agreement)
    parent = evidence.candidate.record.parent
    why = f"agreement with {parent.name if parent else ''} at its operating point"
    if not passed:
        why += " is too low: calibrate with more images, keep the head in float, or lower min_agreement"
    return Verdict("parity", f"{found:.4f}", f">= {limits.min_agreement:g}", passed, f"{why}.")


def accuracy_floor(evidence: Evidence, limits: Limits) -> Verdict:
    """Is it accurate enough by itself?"""
    accuracy = evidence.candidate.accuracy
    metric, found = accuracy.headline
    value = f"{metric} {found:.4f}"
    if limits.accuracy_floor is None:
        return Verdict("accuracy_floor", value, "no floor set", True)
    passed = reaches(found, limits.accuracy_floor)
    why = f"on {accuracy.split}, {accuracy.n_images} images."
    if not passed:
        why += " Train longer, or use a larger network."
    return Verdict("accuracy_floor", value, f">= {limits.accuracy_floor:g}", passed, why)


def accuracy_drop(evidence: Evidence, limits: Limits) -> Verdict:
    """Has it lost no more against its parent than allowed, chance of the images included?"""
    candidate = evidence.candidate
    change = _change(candidate.parent_accuracy, candidate.accuracy, candidate)
    parent = candidate.record.parent
    return _of_change("accuracy_drop", change, limits.max_drop, "max_drop", parent.name if parent else "")


def class_drop(evidence: Evidence, limits: Limits) -> Verdict:
    """Has no class lost more against the parent than allowed?

    The change itself decides and not the lower end of its interval: among many classes one interval always reaches
    far down by chance. Classes with fewer than `LEAST_OBJECTS` objects decide together.
    """
    candidate = evidence.candidate
    own, parent = candidate.accuracy, candidate.parent_accuracy
    change = _changes(own, parent)
    n_objects = _objects(own, candidate.variant.names)
    change = {name: value for name, value in change.items() if not np.isnan(value)}
    counted = {name: value for name, value in change.items() if n_objects[name] >= LEAST_OBJECTS}
    rare = {name: value for name, value in change.items() if name not in counted}
    n_rare = sum(n_objects[name] for name in rare)
    together = sum(n_objects[name] * value for name, value in rare.items()) / n_rare if n_rare else 0.0
    note = ""
    if rare:
        decides = n_rare >= LEAST_OBJECTS
        note = f"{len(rare)} of fewer than {LEAST_OBJECTS} objects ({n_rare} in all) changed by {100 * together:+.2f} "
        note += "together" if decides else "together: too few to decide"
        if decides:
            counted[f"{len(rare)} rare classes"] = together
    limit = f">= {-100 * limits.max_class_drop:g} points"
    if not counted:
        why = f"no class has {LEAST_OBJECTS} objects; {note}." if note else "no image is labelled. Label the split."
        return Verdict("class_drop", "", limit, bool(note), why)
    worst = min(counted, key=lambda name: counted[name])
    passed = reaches(counted[worst], -limits.max_class_drop)
    said = [_interval_of(candidate.variant.names.index(worst), own, parent)] if worst in change else []
    said += [note] if note else []
    said += [] if passed else ["keep more layers in float, add images of it, or raise max_class_drop"]
    return Verdict("class_drop", f"{worst} {100 * counted[worst]:+.2f}", limit, passed, f"{'; '.join(said)}.")


def champion_drop(evidence: Evidence, limits: Limits) -> Verdict:
    """Has it lost no more against the champion than allowed, on the same images?"""
    champion = evidence.champion
    if champion is None:
        return Verdict("champion_drop", "", "no champion", True)
    candidate, who = evidence.candidate, f"the champion, version {champion.fetched.version}"
    limit = f"low end >= {-100 * limits.max_champion_drop:g} points"
    if champion.variant.names != candidate.variant.names or champion.variant.task != candidate.variant.task:
        why = f"{who}, knows other classes or another task. Promote it to a target of its own, or override this gate."
        return Verdict("champion_drop", "", limit, False, why)
    own, theirs = candidate.scores, champion.scores
    if (own.dataset, own.split) != (theirs.dataset, theirs.split):
        why = f"{who}, was scored on {theirs.split} of data {theirs.dataset}, this one on {own.split} of {own.dataset}."
        return Verdict("champion_drop", "", limit, False, f"{why} {_REMEASURE}")
    change = _change(champion.accuracy, candidate.accuracy, candidate)
    return _of_change("champion_drop", change, limits.max_champion_drop, "max_champion_drop", who)


def _numeric_parity(candidate: Subject) -> Verdict:
    found, limit = candidate.record.parity, f"<= {MAX_SCORE:g}, <= {MAX_BOX_PX:g} px"
    if found is None:
        why = "its output was not compared with its checkpoint's. Benchmark it together with that, and register again."
        return Verdict("parity", "", limit, False, why)
    score, box, n_images = (found.get(name, np.nan) for name in ("score_max", "box_max_px", "n_images"))
    passed = bool(score <= MAX_SCORE and box <= MAX_BOX_PX)
    why = f"largest difference of scores and of corners from its checkpoint, {n_images:.0f} images"
    if not passed:
        why += "; export it again from the checkpoint"
    return Verdict("parity", f"{score:.2g}, {box:.2g} px", limit, passed, f"{why}.")


def _change(reference: Accuracy, own: Accuracy, candidate: Subject) -> Difference:
    return difference(reference, own, n_classes=len(candidate.variant.names))


def _of_change(gate: str, change: Difference, allowed: float, key: str, reference: str) -> Verdict:
    passed = reaches(change.low, -allowed)
    value = f"{100 * change.difference:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
    why = f"change in points against {reference}, interval over {change.n_images} images"
    if not passed and reaches(change.difference, -allowed):
        why += f": the loss itself would do, so more test images may show it, or raise {key}"
    elif not passed:
        why += f": it has lost too much; fine-tune it, keep more layers in float, or raise {key}"
    return Verdict(gate, value, f"low end >= {-100 * allowed:g} points", passed, f"{why}.")


def _changes(own: Accuracy, parent: Accuracy) -> dict[str, float]:
    return {name: value - parent.per_class[name] for name, value in own.per_class.items()}


def _objects(accuracy: Accuracy, names: tuple[str, ...]) -> dict[str, int]:
    """Return the objects of each class; of a classifier, its images."""
    counts = np.bincount(_true(accuracy), minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _true(accuracy: Accuracy) -> Ints:
    if len(accuracy.correct):
        return accuracy.true
    return np.concatenate([np.zeros(0, np.int64), *(sample.gt_classes for sample in accuracy.samples)])


def _interval_of(index: int, own: Accuracy, parent: Accuracy) -> str:
    """Return the interval of one class' change, as text."""
    if len(own.correct):
        which = own.true == index
        values: dict[str, list[Floats]] = {"parent": [parent.correct[which]], "own": [own.correct[which]]}
        found = bootstrap_mean(values, baseline="parent")["own"]
    else:
        samples = {"parent": [_only(parent, index)], "own": [_only(own, index)]}
        found = bootstrap_map(samples, baseline="parent", n_classes=1)["own"]
    return f"interval over images [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def _only(accuracy: Accuracy, index: int) -> list[Sample]:
    """Return the samples with nothing but one class, as class 0."""
    return [
        replace(
            sample,
            gt_boxes=sample.gt_boxes[sample.gt_classes == index],
            gt_classes=np.zeros(int((sample.gt_classes == index).sum()), np.int64),
            boxes=sample.boxes[sample.classes == index],
            scores=sample.scores[sample.classes == index],
            classes=np.zeros(int((sample.classes == index).sum()), np.int64),
        )
        for sample in accuracy.samples
    ]
