import io

import pytest

from mlflow_yolo.stages import Stages


class Terminal(io.StringIO):
    """Standard error that says that people look at it."""

    def isatty(self) -> bool:
        return True


def test_a_stage_shows_its_name_and_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Stages() as stages:
        count = stages.count("scoring", unit="image")
        for done in (8, 16, 20):
            count(done, 20)
            assert stages._bar is not None
            assert (stages._bar.n, stages._bar.total) == (done, 20)
    assert "scoring" in terminal.getvalue()
    assert stages._bar is None


def test_a_stage_that_goes_on_where_it_stopped_begins_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    with Stages() as stages:
        stages.count("benchmark")(7, 10)
        assert stages._bar is not None
        assert stages._bar.n == 7


def test_the_next_stage_takes_the_place_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    with Stages() as stages:
        tell = stages.begin("first", 3)
        tell(1)
        first = stages._bar
        stages.begin("second", 5)(2)
        assert stages._bar is not first
        assert stages._bar is not None
        assert (stages._bar.desc, stages._bar.n, stages._bar.total) == ("second", 2, 5)


def test_a_file_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    with Stages() as stages:
        stages.count("scoring")(1, 2)
        stages.begin("pictures", 2)(1)
    assert file.getvalue() == ""


def test_an_error_takes_the_bar_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    stages = Stages()

    def fail() -> None:
        with stages:
            stages.begin("first", 3)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert stages._bar is None
