from dataclasses import replace

from mlflow_yolo.training.block_need import BlockAdvice
from mlflow_yolo.training.freeze_reasons import reasons

ROWS = [
    BlockAdvice(0, "00-Conv", "backbone", 1.0, None, 1.0, 0.02, None, 1.0),
    BlockAdvice(1, "01-Conv", "backbone", 1.0, None, 9.0, 0.3, None, 3.0),
    BlockAdvice(2, "02-Concat", "neck"),
    BlockAdvice(3, "03-C3k2", "neck", 1.0, None, 400.0, None, None, 20.0),
    BlockAdvice(4, "04-Detect", "head", 1.0, None, 100.0, None, None, 10.0),
]


def said(depth: int, *, rows: list[BlockAdvice] = ROWS, source: str | None = None, new_head: bool = False) -> list[str]:
    return list(reasons(rows, depth, data="cells", source=source, new_head=new_head))


def test_a_depth_names_the_needs_before_and_behind_it_and_what_is_little() -> None:
    assert said(2) == [
        "The first 2 blocks need 2.0 on average, those behind them 20.0 (a need is how many times the noise of its "
        "gradient a block's gradient is, and up to 4.0 is little).",
        "In 1 of the 2 blocks with weights to freeze, the gradient is hardly more than noise.",
        "The batch norms of 01-Conv have moved most, by 0.3 nats a channel: frozen, they would keep their old "
        "statistics.",
    ]


def test_nothing_to_freeze_names_the_first_need_and_the_least() -> None:
    rows = [replace(ROWS[0], need=9.0), *ROWS[1:]]
    need, drift = said(0, rows=rows, source="digits")

    assert "00-Conv needs 9.0, the least of all is 3.0 in 01-Conv" in need
    assert "its gradient on digits" in need
    assert drift.endswith("by 0.3 nats a channel: it trains.")


def test_everything_but_the_head_has_nothing_behind_it() -> None:
    assert said(4)[0].startswith("The first 4 blocks need 8.0 on average (")


def test_a_small_drift_is_said_to_be_little_and_stands_beside_that_of_the_source() -> None:
    rows = [replace(ROWS[0], source_drift=0.001), *[replace(row, bn_drift=None) for row in ROWS[1:]]]
    assert said(2, rows=rows)[-1] == (
        "The batch norms of 00-Conv have moved most, by 0.02 nats a channel (0.001 on the source data): little."
    )


def test_a_new_head_is_said() -> None:
    assert "cells" in said(0, new_head=True)[-1]
    assert "the head is new" in said(0, new_head=True)[-1]


def test_nothing_measured_advises_nothing() -> None:
    (only,) = said(0, rows=[BlockAdvice(0, "00-Conv", "backbone"), BlockAdvice(1, "Detect", "head")])
    assert "nothing is advised" in only
