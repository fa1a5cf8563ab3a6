"""Gates on what a version costs. A time says something about the machine it was taken on and about no other."""

from mlflow_yolo.registry.gates.evidence import Evidence
from mlflow_yolo.registry.gates.gate import Verdict, exceeds
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.record import Measured
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult
from mlflow_yolo.runtime.hardware import Hardware
from mlflow_yolo.runtime.speed import speedup as speed_ratio

_REMEASURE = "Measure it here: --rebenchmark --data <data.yaml>."


def latency(evidence: Evidence, limits: Limits) -> Verdict:
    """Does one inference take no longer than the budget, 95 times in 100?"""
    return _budget(evidence, limits, "latency", limits.p95_ms, "ms", "Use a smaller kind or network, or raise p95_ms.")


def memory(evidence: Evidence, limits: Limits) -> Verdict:
    """Does the process that runs it need no more memory than the budget?"""
    return _budget(evidence, limits, "memory", limits.memory_mb, "MB", "Use ONNX Runtime, or raise memory_mb.")


def speedup(evidence: Evidence, limits: Limits) -> Verdict:
    """Is it faster than its parent, by rounds in which both were measured?

    A float32 export whose checkpoint was not timed with it has nothing to beat: a checkpoint is never deployed. A
    champion, of the same kind or another, has no say.
    """
    record = evidence.candidate.record
    own, parent = record.variant, record.parent
    limit = f"low end > {limits.min_speedup:g}x"
    if not _side_by_side(own, parent):
        if own.kind.startswith("fp32") and (parent is None or parent.kind == "pt"):
            return Verdict("speedup", "", "no parent timed", True, "what others are compared with has nothing to beat.")
        name = parent.name if parent else "no parent"
        return Verdict("speedup", "", limit, False, f"{name} was measured side by side with it. {_REMEASURE}")
    assert parent is not None
    if error := own.cost.error or parent.cost.error:
        return Verdict("speedup", "", limit, False, f"it could not be timed: {error.rstrip('.')}. {_REMEASURE}")
    if elsewhere := _elsewhere(own.cost, evidence, limits):
        return Verdict("speedup", "", limit, False, elsewhere)
    found = speed_ratio(parent.cost, own.cost)
    passed = exceeds(found.low, limits.min_speedup)
    why = f"times as fast as {parent.name}, interval over {found.n_rounds} rounds"
    if not passed:
        why += ": use the parent itself, another kind, more rounds, or speedup: off"
    return Verdict("speedup", f"{found.value:.2f}x [{found.low:.2f}, {found.high:.2f}]", limit, passed, f"{why}.")


def _budget(evidence: Evidence, limits: Limits, gate: str, budget: float | None, unit: str, remedy: str) -> Verdict:
    cost = evidence.candidate.record.variant.cost
    found = cost.latency_p95_ms if gate == "latency" else cost.peak_memory_mb
    value = f"p95 {found:.2f} ms" if gate == "latency" else f"{found:.1f} MB"
    if budget is None:
        return Verdict(gate, value, "no budget set", True)
    limit = f"<= {budget:g} {unit}"
    if cost.error:
        return Verdict(gate, "", limit, False, f"it could not be timed: {cost.error.rstrip('.')}. {_REMEASURE}")
    if elsewhere := _elsewhere(cost, evidence, limits):
        return Verdict(gate, value, limit, False, elsewhere)
    passed = found <= budget
    return Verdict(gate, value, limit, passed, "" if passed else f"{_busy(cost.hardware)}{remedy}")


def _busy(machine: Hardware) -> str:
    """Return that a machine had other things to do, which makes the slowest runs slower still."""
    if machine.load1 <= machine.cores:
        return ""
    return f"Measured under load {machine.load1:g} on {machine.cores} cores: try again when nothing else runs. "


def _side_by_side(own: Measured, parent: Measured | None) -> bool:
    return parent is not None and bool(own.cost.benchmark) and own.cost.benchmark == parent.cost.benchmark


def _elsewhere(cost: BenchmarkResult, evidence: Evidence, limits: Limits) -> str:
    """Return why a time does not hold for the machine that is asked about; empty where it does."""
    there = cost.hardware
    if limits.hardware:
        if there.fingerprint == limits.hardware:
            return ""
        return (
            f"measured on {there.fingerprint} ({there.cpu_model}), hardware: {limits.hardware} is asked for. "
            "Measure it there with --rebenchmark --data <data.yaml>."
        )
    here = evidence.read_hardware(there.threads)
    if here.fingerprint == there.fingerprint:
        return ""
    return f"measured on another machine: {_differences(there, here)}. {_REMEASURE}"


def _differences(there: Hardware, here: Hardware) -> str:
    """Return in what two machines differ, of what the fingerprint holds."""
    names = [name for name in ("cpu_model", "isa", "bf16", "cores", "python") if _differ(there, here, name)]
    found = [f"{name} {getattr(there, name)} there, {getattr(here, name)} here" for name in names]
    for name in sorted({*there.versions, *here.versions}):
        old, new = (one.versions.get(name, "none") for one in (there, here))
        if old != new:
            found.append(f"{name} {old} there, {new} here")
    return "; ".join(found)


def _differ(there: Hardware, here: Hardware, name: str) -> bool:
    return bool(getattr(there, name) != getattr(here, name))
