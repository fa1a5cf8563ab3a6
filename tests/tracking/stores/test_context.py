"""Who ran what, read without git and without MLflow."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_yolo.tracking.stores.context import context_tags, git_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def git(tmp_path: Path) -> Path:
    """A repository's `.git` whose HEAD names the branch main."""
    folder = tmp_path / "repository" / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def test_the_commit_is_that_of_the_branch(git: Path) -> None:
    (git / "refs" / "heads" / "main").write_text(COMMIT + "\n")
    (git.parent / "src").mkdir()
    assert git_commit(git.parent / "src") == COMMIT


def test_a_packed_branch_and_a_detached_head_are_read(git: Path) -> None:
    (git / "packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    assert git_commit(git.parent) == COMMIT
    (git / "HEAD").write_text("f" * 40)
    assert git_commit(git.parent) == "f" * 40


def test_a_worktree_leads_to_its_repository(git: Path, tmp_path: Path) -> None:
    (git / "refs" / "heads" / "side").write_text(COMMIT)
    linked = git / "worktrees" / "side"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/side")
    (linked / "commondir").write_text("../..")
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / ".git").write_text(f"gitdir: {linked}\n")
    assert git_commit(tmp_path / "side") == COMMIT


def test_a_repository_without_a_commit_and_no_repository_have_none(git: Path, tmp_path: Path) -> None:
    assert git_commit(git.parent) is None
    assert git_commit(tmp_path) is None


def test_the_tags_name_user_and_program() -> None:
    tags = context_tags()
    assert tags["mlflow.user"]
    assert tags["mlflow.source.type"] == "LOCAL"


def test_importing_the_tracking_modules_imports_no_mlflow() -> None:
    code = "import sys, mlflow_yolo.tracking.run, mlflow_yolo.tracking.stores.store; "
    code += "import mlflow_yolo.tracking.delivery.replay; "
    code += "print(sorted({'mlflow', 'torch', 'ultralytics'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == "[]\n"
