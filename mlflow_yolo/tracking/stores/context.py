"""Tags that say who ran what: MLflow sets them in `start_run` only, which this package does not use."""

import getpass
import os
import sys
from pathlib import Path


def context_tags() -> dict[str, str]:
    """Return MLflow's user, source and git tags for this process, without importing MLflow or running git."""
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": sys.argv[0] if sys.argv and sys.argv[0] else "<console>",
        "mlflow.source.type": "LOCAL",
    }
    commit = git_commit(Path(tags["mlflow.source.name"]).absolute().parent) or git_commit(Path.cwd())
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def git_commit(start: Path) -> str | None:
    """Return the commit checked out at `start` or above it, read from the files of git; None outside a repository."""
    for folder in (start, *start.parents):
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree or submodule
                git = folder / git.read_text().removeprefix("gitdir:").strip()
            if git.is_dir():
                return _resolve_head(git)
        except OSError:
            return None
    return None


def _resolve_head(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    ref = head.removeprefix("ref:").strip()
    common = git / "commondir"
    roots = [git, git / common.read_text().strip()] if common.is_file() else [git]
    for root in roots:
        if (root / ref).is_file():
            return (root / ref).read_text().strip()
        packed = root / "packed-refs"
        for line in packed.read_text().splitlines() if packed.is_file() else []:
            if line.endswith(f" {ref}"):
                return line.split(" ", 1)[0]
    return None


def _user() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user id without a name
        return "unknown"


def is_active_here(run_id: str) -> bool:
    """Return whether this process itself opened `run_id` (`mlflow.start_run()`): then it cannot outlive the process.

    A run that was handed over by `mlflow run` is active here as well, but belongs to the driver.
    """
    import mlflow

    active = mlflow.active_run()
    return active is not None and active.info.run_id == run_id and os.environ.get("MLFLOW_RUN_ID") != run_id
