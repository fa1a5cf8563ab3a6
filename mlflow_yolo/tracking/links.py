"""Links that open MLflow's UI where a study is best compared.

The UI's start page lists children folded under their parent and sorts chart sections by name. Two of its own addresses
show more: the comparison of chosen runs (parallel coordinates over params and metrics), and the chart view of the
study's runs sorted by the metric that decides (sorting unfolds the children).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mlflow_yolo.tracking.delivery import server
from mlflow_yolo.tracking.stores.addresses import answers, is_http, redact

LOCAL_UI = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class Links:
    """Addresses within MLflow's UI, each starting with `#`.

    Attributes:
        run: The study's parent run.
        compare: Parallel coordinates of the children.
        charts: All charts of the children, sorted by the deciding metric.
    """

    run: str
    compare: str
    charts: str


def study_links(
    tracking_uri: str, *, parent_run_id: str | None, child_run_ids: Sequence[str], study: str, metric: str
) -> Links | None:
    """Return the links of a study, or None where its store does not answer or does not know it yet.

    Args:
        tracking_uri: The store.
        parent_run_id: The parent run.
        child_run_ids: The children to compare.
        study: The study's name, as in the tag of its runs.
        metric: Key of the metric that decides.
    """
    if parent_run_id is None or not child_run_ids or not answers(tracking_uri):
        return None
    try:
        experiment = server.connect(tracking_uri).get_run(parent_run_id).info.experiment_id
    except Exception:
        # Links are a convenience at the end of a finished study: a store that fails now is reported by the journal.
        return None
    return _links(str(experiment), parent_run_id, child_run_ids, study, metric)


def _links(experiment: str, parent_run_id: str, child_run_ids: Sequence[str], study: str, metric: str) -> Links:
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(child_run_ids), [experiment]))
    children = quote(
        f"tags.`mlflow_yolo.study` = '{study}' AND attributes.status = 'FINISHED' AND metrics.`{metric}` >= 0"
    )
    order = quote(f"metrics.`{metric}`")
    return Links(
        run=f"#/experiments/{experiment}/runs/{parent_run_id}",
        compare=f"#/compare-runs?runs={runs}&experiments={experiments}",
        charts=f"#/experiments/{experiment}/runs?searchFilter={children}"
        f"&orderByKey={order}&orderByAsc=false&compareRunsMode=CHART",
    )


def ui_address(tracking_uri: str) -> tuple[str, str]:
    """Return the UI's address, and the command that starts it where no server runs already."""
    if is_http(tracking_uri):
        return redact(tracking_uri).rstrip("/"), ""
    return LOCAL_UI, f"mlflow ui --backend-store-uri {redact(tracking_uri)}"
