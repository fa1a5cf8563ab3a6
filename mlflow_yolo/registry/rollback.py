"""Back to the champion before, in less time than it takes to notice: two aliases move, nothing is built or loaded."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_yolo.registry.champions import CHALLENGER, CHAMPION, alias_of, roll_back
from mlflow_yolo.registry.history import CHALLENGE, Entry
from mlflow_yolo.registry.quick_client import quick_client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def bring_back(
    tracking_uri: str,
    *,
    name: str,
    target: str,
    by: str,
    reason: str = "",
    expected: str | None = None,
    open_client: Callable[[], "MlflowClient"],
    tell: Callable[[str], object] = lambda line: None,
) -> Entry:
    """Make the champion before this one champion again.

    Args:
        tracking_uri: The registry.
        name: The model.
        target: Where it runs.
        by: Who does it.
        reason: Why.
        expected: See `roll_back`.
        open_client: Opens MLflow's own client, which takes seconds; for what can wait until the aliases have moved.
        tell: Told what has happened as soon as it has.

    Raises:
        ArgumentError: There is no champion, or none before it.
        StoreError: The registry does not answer, or refuses.
        WorkError: See `roll_back`.
    """
    quick = quick_client(tracking_uri, name)
    if quick is not None:
        entry = roll_back(quick, name, target=target, by=by, reason=reason, expected=expected)  # type: ignore[arg-type]
        tell(moved_text(name, entry))
    from mlflow_yolo.registry.store import plain_errors

    with plain_errors(f"roll {name} back"):
        client = open_client()
        if quick is None:
            entry = roll_back(client, name, target=target, by=by, reason=reason, expected=expected)
            tell(moved_text(name, entry))
    from mlflow_yolo.registry.description import model_text

    with plain_errors(f"bring the description of {name} up to date (the rollback is done)"):
        client.update_registered_model(name, model_text(client, name))
    return entry


def moved_text(name: str, entry: Entry) -> str:
    """Return what an entry did, as a sentence."""
    role = CHALLENGER if entry.action == CHALLENGE else CHAMPION
    instead = f" instead of version {entry.replaced}" if entry.replaced else ""
    return f"{name} version {entry.version} is {alias_of(role, entry.target)} now{instead}."
