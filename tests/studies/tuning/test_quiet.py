import logging
import warnings

import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import WilcoxonPruner
from optuna.samplers import TPESampler

from mlflow_yolo.studies.tuning.quiet import quiet


def test_optunas_notices_about_itself_are_not_heard() -> None:
    with pytest.warns(ExperimentalWarning):
        WilcoxonPruner()
    with pytest.warns(FutureWarning):
        TPESampler(prior_weight=2.0)
    with quiet():  # warnings are errors in these tests
        WilcoxonPruner()
        TPESampler(prior_weight=2.0)


def test_other_warnings_are_heard() -> None:
    for kind, text in ((UserWarning, "disk is nearly full"), (FutureWarning, "pandas will change its mind")):
        with pytest.warns(kind, match=text), quiet():
            warnings.warn(text, kind, stacklevel=1)


def test_afterwards_they_are_heard_again() -> None:
    with quiet():
        pass
    with pytest.warns(ExperimentalWarning):
        WilcoxonPruner()


def test_only_the_advice_to_install_a_package_is_kept_off_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("optuna._gp.batched_lbfgsb")
    with quiet(), caplog.at_level("WARNING"):
        logger.addHandler(caplog.handler)
        logger.warning("The 'greenlet' package is unavailable")
        logger.warning("the fit failed")
        logger.removeHandler(caplog.handler)
    assert {record.message for record in caplog.records} == {"the fit failed"}
    assert not logger.filters
