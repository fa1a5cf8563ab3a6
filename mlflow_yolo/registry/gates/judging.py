"""Every gate asked in its order, and what is shown and kept of the answers."""

from collections.abc import Callable, Iterable, Sequence

from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.figures.table import text_table
from mlflow_yolo.registry.gates import cost_gates, file_gates, quality_gates
from mlflow_yolo.registry.gates.evidence import Evidence
from mlflow_yolo.registry.gates.gate import GATES as GATES
from mlflow_yolo.registry.gates.gate import OFF, Verdict
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.gates.smoke import smoke

Gate = Callable[[Evidence, Limits], Verdict]

_MOST_CHARACTERS = 4000
"""Of a tag; some stores of MLflow take 5000."""

_ASKED: dict[str, Gate] = {
    "integrity": file_gates.integrity,
    "metadata": file_gates.metadata,
    "parity": quality_gates.parity,
    "accuracy_floor": quality_gates.accuracy_floor,
    "accuracy_drop": quality_gates.accuracy_drop,
    "class_drop": quality_gates.class_drop,
    "champion_drop": quality_gates.champion_drop,
    "latency": cost_gates.latency,
    "speedup": cost_gates.speedup,
    "size": file_gates.size,
    "memory": cost_gates.memory,
    "smoke": smoke,
}


def judge(evidence: Evidence, limits: Limits) -> list[Verdict]:
    """Return the verdict of every gate, in the order of `GATES`.

    A gate whose evidence is missing or damaged fails with the reason; the others are asked all the same.
    """
    return [_verdict(gate, evidence, limits) for gate in GATES]


def report(verdicts: Sequence[Verdict]) -> str:
    """Return the table that is printed, and below it a line for each gate that has something to say."""
    rows = [[one.gate, one.value, one.limit, one.word] for one in verdicts]
    notes = [f"{one.gate}: {one.why}" for one in verdicts if one.why]
    table = text_table(["gate", "value", "limit", "verdict"], rows)
    return "\n\n".join([table, "\n".join(notes)]) if notes else table


def tags(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Return the tags of a version: `gate.size` = `pass 3.14 MB <= 5 MB`, what failed with its reason."""
    return {f"gate.{one.gate}": _tag(one)[:_MOST_CHARACTERS] for one in verdicts}


def _verdict(gate: str, evidence: Evidence, limits: Limits) -> Verdict:
    if gate in limits.off:
        return Verdict(gate, "", OFF, True)
    try:
        return _ASKED[gate](evidence, limits)
    except MlflowYoloError as error:
        return Verdict(gate, "", "evidence", False, " ".join(str(error).split()))


def _tag(verdict: Verdict) -> str:
    if verdict.word == OFF:
        return OFF
    found = " ".join(part for part in (verdict.word, verdict.value, verdict.limit) if part)
    return found if verdict.passed or not verdict.why else f"{found} ({verdict.why})"
