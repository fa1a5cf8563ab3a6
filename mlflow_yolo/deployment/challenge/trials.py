"""The trial of a new version, as a run of its own."""

from collections.abc import Callable
from dataclasses import asdict

from mlflow_yolo import __version__, keys
from mlflow_yolo.deployment.challenge.comparison import TAG_DEPLOYMENT, Run, short
from mlflow_yolo.deployment.challenge.watch import RollbackLimits, Verdict


def record_trial(verdict: Verdict, limits: RollbackLimits, open_one: Callable[[str], Run]) -> None:
    """Write a run `trial cells 8`: what was measured of both versions, the limits, and what came of it.

    Args:
        verdict: How the trial ended.
        limits: What had to be kept.
        open_one: Opens a run of a name.
    """
    run = open_one(f"trial {short(verdict.new)}")
    run.set_tags(
        {
            TAG_DEPLOYMENT: "trial",
            keys.TAG_VERSION: __version__,
            "old.version": short(verdict.old),
            "old.sha256": verdict.old.sha256,
            "new.version": short(verdict.new),
            "new.sha256": verdict.new.sha256,
            "verdict": "rolled back" if verdict.violations else "passed",
            keys.TAG_NOTE: _note(verdict),
        }
    )
    run.log_params({f"limit.{name}": value for name, value in asdict(limits).items() if value is not None})
    run.log_metrics(
        {**{f"trial/{k}": v for k, v in verdict.figures.items()}, "trial/violations": len(verdict.violations)}
    )
    run.close("FINISHED")


def _note(verdict: Verdict) -> str:
    if not verdict.violations:
        return f"{short(verdict.new)} has taken the place of {short(verdict.old)} and kept the limits."
    lines = [f"{short(verdict.new)} did not keep the limits, {short(verdict.old)} was brought back.", ""]
    return "\n".join(lines + [f"- {violation}" for violation in verdict.violations])
