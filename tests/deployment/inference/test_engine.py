import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.deployment.inference.backend import Answer, Busy, Closed, Loaded, Options, TooLate
from mlflow_yolo.deployment.inference.engine import Engine, retry_after_s
from mlflow_yolo.deployment.inference.served import Served, open_served
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.runtime.pipeline import open_pipeline
from tests.deployment.tiny_variants import WatchedPipeline, noise, picture, tiny_variant

PATIENCE_S = 20
RED = picture((1, 2, "red"))
WHITE = np.full((32, 32, 3), 255, np.uint8)


class Gate:
    """Holds every inference until it is opened, and counts those that came."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.sizes: list[int] = []

    def __call__(self, batch: np.ndarray) -> None:
        self.sizes.append(len(batch))
        self.arrived.release()
        assert self.open.wait(PATIENCE_S)


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    return tiny_variant(tmp_path / "eight", side=8)


@pytest.fixture
def make(variant: Path) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts an engine whose inferences call `before`; all are closed at the end."""
    engines = []

    def start(before: Callable[[np.ndarray], object] | None = None, **options: Any) -> Engine:
        source: Any = variant
        if before is not None:
            opened = open_served(variant, max_batch=options.get("max_batch", 1))
            source = Served(opened.loaded, [WatchedPipeline(open_pipeline(variant), before)], sizes=opened.sizes)
        engines.append(Engine(source, **{"workers": 1, **options}))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close(0)


def crew() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]


def hold(engine: Engine, gate: Gate) -> "Future[Answer]":
    """Return the future of an image that is being computed until the gate opens."""
    future = engine.submit(RED)
    assert gate.arrived.acquire(timeout=PATIENCE_S)
    return future


def test_answers_are_those_of_a_detector_whatever_runs_beside_them(tmp_path: Path) -> None:
    folder = tiny_variant(tmp_path / "v", side=12, operating_point={"conf": 0.45, "per_class": {"green": 0.5}})
    images, detector = [noise(seed) for seed in range(40)], Detector(folder)
    engine = Engine(folder, workers=3)
    answers = [future.result(PATIENCE_S) for future in [engine.submit(image) for image in images]]
    engine.close(PATIENCE_S)
    for image, answer in zip(images, answers, strict=True):
        wanted = detector(image)
        assert len(wanted)
        for name in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(answer.detections, name), getattr(wanted, name))


def test_an_answer_says_what_computed_it_and_how_large_the_image_was(make: Callable[..., Engine]) -> None:
    engine = make()
    answer = engine.submit(noise(0, width=45, height=33)).result(PATIENCE_S)
    assert (answer.width, answer.height, answer.batch) == (45, 33, 1)
    assert answer.model == engine.status().serving
    assert answer.queue_ms >= 0
    assert answer.compute_ms > 0


def test_pixels_are_taken_as_bytes_are(make: Callable[..., Engine]) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:16, 16:24, 2] = 255  # BGR
    answers = [make().submit(image).result(PATIENCE_S) for image in (pixels, RED)]
    assert answers[0].detections.boxes.tolist() == answers[1].detections.boxes.tolist() == [[16, 8, 24, 16]]


def test_options_are_those_of_the_one_image(make: Callable[..., Engine]) -> None:
    engine, image = make(), picture((0, 0, "red"), (2, 2, "blue"))
    futures = [engine.submit(image, options) for options in (Options(), Options(max_det=1), Options(conf=1.0))]
    assert [len(future.result(PATIENCE_S).detections) for future in futures] == [2, 1, 0]


@pytest.mark.parametrize("image", ["street.jpg", Path("street.jpg"), None, ["street.jpg"]])
def test_nothing_but_bytes_and_pixels_is_taken(make: Callable[..., Engine], image: Any) -> None:
    with pytest.raises(ArgumentError, match=type(image).__name__):
        make().submit(image)


def test_a_full_line_refuses_at_once_and_loses_nothing(make: Callable[..., Engine]) -> None:
    gate = Gate()
    engine = make(gate, max_queue=2)
    futures = [hold(engine, gate), engine.submit(RED), engine.submit(RED)]
    with pytest.raises(Busy, match=r"^2 images") as caught:
        engine.submit(RED)
    assert caught.value.retry_after_s >= 1
    assert (engine.status().queue, engine.status().in_flight) == (2, 1)
    gate.open.set()
    assert [len(future.result(PATIENCE_S).detections) for future in futures] == [1, 1, 1]
    assert engine.submit(RED).result(PATIENCE_S)


@pytest.mark.parametrize(
    ("ahead", "seconds", "workers", "expected"),
    [(64, 0.5, 2, 16), (65, 0.5, 2, 17), (3, 0.01, 1, 1), (5, 0.0, 2, 1), (66, 0.022, 2, 1), (10, 3.0, 1, 30)],
)
def test_who_is_refused_is_told_when_those_ahead_will_be_done(
    ahead: int, seconds: float, workers: int, expected: int
) -> None:
    assert retry_after_s(ahead, seconds, workers) == expected


def test_what_waited_too_long_is_answered_without_being_computed(make: Callable[..., Engine]) -> None:
    gate = Gate()
    gate.open.set()
    engine = make(gate, timeout_s=1e-9)
    with pytest.raises(TooLate):
        engine.submit(RED).result(PATIENCE_S)
    assert gate.sizes == []


def test_who_went_away_is_not_computed_for(make: Callable[..., Engine]) -> None:
    gate = Gate()
    engine = make(gate)
    first, second, third = hold(engine, gate), engine.submit(RED), engine.submit(RED)
    assert second.cancel()
    gate.open.set()
    assert first.result(PATIENCE_S)
    assert third.result(PATIENCE_S)
    assert gate.sizes == [1, 1]


def test_a_malformed_image_is_its_own_error_and_not_that_of_its_batch(make: Callable[..., Engine]) -> None:
    gate = Gate()
    engine = make(gate, max_batch=4)
    held = hold(engine, gate)
    good, bad, best = engine.submit(RED), engine.submit(b"\x89PNG nothing"), engine.submit(RED)
    fourth = engine.submit(RED)
    gate.open.set()
    with pytest.raises(ArgumentError, match="12 bytes"):
        bad.result(PATIENCE_S)
    assert [future.result(PATIENCE_S).batch for future in (held, good, best, fourth)] == [1, 2, 2, 1]
    assert gate.sizes == [1, 2, 1]  # three would be a size for which an OpenVINO model is not compiled


def test_an_image_that_breaks_the_model_is_computed_by_itself_and_so_are_the_others(
    make: Callable[..., Engine],
) -> None:
    gate = Gate()

    def before(batch: np.ndarray) -> None:
        gate(batch)
        if (batch.reshape(len(batch), -1).min(axis=1) == 1).any():
            raise RuntimeError("Non-zero status code returned while running Conv node")

    engine = make(before, max_batch=4)
    held = hold(engine, gate)
    futures = [engine.submit(image) for image in (RED, WHITE, RED, RED)]
    gate.open.set()
    with pytest.raises(WorkError, match="Conv node"):
        futures[1].result(PATIENCE_S)
    assert [future.result(PATIENCE_S).batch for future in (held, futures[0], *futures[2:])] == [1, 1, 1, 1]
    assert gate.sizes == [1, 4, 1, 1, 1, 1]


def test_no_error_ends_a_worker(make: Callable[..., Engine]) -> None:
    def before(batch: np.ndarray) -> None:
        if batch.min() == 1:
            raise MemoryError

    engine = make(before, workers=2, max_queue=100)
    before_crew = crew()
    futures = [engine.submit(image) for image in [WHITE, b"", b"GIF89a", RED] * 25]
    wait(futures, PATIENCE_S)
    errors = [type(future.exception()) for future in futures]
    assert errors == [WorkError, ArgumentError, ArgumentError, type(None)] * 25
    assert crew() == before_crew
    assert engine.status().in_flight == 0


def test_a_batch_is_computed_as_one_and_gives_what_single_images_give(make: Callable[..., Engine]) -> None:
    engine, single = make(max_batch=2, batch_wait_ms=60_000), make()
    images = [picture((0, 1, "green")), picture((2, 3, "blue"), (3, 3, "red"))]
    wishes = [Options(), Options(max_det=1)]
    futures = [engine.submit(image, wish) for image, wish in zip(images, wishes, strict=True)]
    answers = [future.result(PATIENCE_S) for future in futures]
    assert [(answer.batch, len(answer.detections)) for answer in answers] == [(2, 1), (2, 1)]
    for image, wish, answer in zip(images, wishes, answers, strict=True):
        wanted = single.submit(image, wish).result(PATIENCE_S)
        assert np.array_equal(answer.detections.boxes, wanted.detections.boxes)
        assert np.array_equal(answer.detections.scores, wanted.detections.scores)


def test_workers_that_compute_at_once_have_a_pipeline_each_where_there_are_several(variant: Path) -> None:
    gates = Gate(), Gate()
    opened = open_served(variant)
    pipelines = [WatchedPipeline(open_pipeline(variant), gate) for gate in gates]
    engine = Engine(Served(opened.loaded, pipelines), workers=2)
    futures = [engine.submit(RED), engine.submit(RED)]
    both = [gate.arrived.acquire(timeout=PATIENCE_S) for gate in gates]
    for gate in gates:
        gate.open.set()
    assert both == [True, True]
    assert [len(future.result(PATIENCE_S).detections) for future in futures] == [1, 1]
    engine.close(PATIENCE_S)


def test_closing_finishes_what_waits_and_leaves_no_thread(make: Callable[..., Engine]) -> None:
    gate = Gate()
    engine = make(gate, workers=2)
    futures = [hold(engine, gate), *(engine.submit(RED) for _ in range(5))]
    threads = [thread for thread in crew() if thread.is_alive()]
    threading.Timer(0.05, gate.open.set).start()
    engine.close(PATIENCE_S)
    assert [len(future.result(0).detections) for future in futures] == [1] * 6
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(Closed):
        engine.submit(RED)
    engine.close(0)


def test_what_the_grace_is_too_short_for_is_told_so(make: Callable[..., Engine]) -> None:
    gate = Gate()
    engine = make(gate)
    held, waiting = hold(engine, gate), [engine.submit(RED) for _ in range(3)]
    waiting[-1].add_done_callback(lambda _: gate.open.set())
    waiting[0].cancel()
    engine.close(0)
    assert len(held.result(0).detections) == 1
    assert waiting[0].cancelled()
    assert [type(future.exception(0)) for future in waiting[1:]] == [Closed, Closed]
    assert crew() == []


def test_what_is_computed_at_a_swap_ends_on_the_old_model_and_closes_it(
    make: Callable[..., Engine], tmp_path: Path
) -> None:
    gate = Gate()
    engine = make(gate)
    old, new = engine._served, open_served(tiny_variant(tmp_path / "four", side=4))
    held, waiting = hold(engine, gate), engine.submit(RED)
    engine.swap(new)
    assert engine.status().serving == new.loaded
    assert not old.closed
    gate.open.set()
    answers = held.result(PATIENCE_S), waiting.result(PATIENCE_S)
    assert [answer.model for answer in answers] == [old.loaded, new.loaded]
    assert [answer.detections.boxes.tolist() for answer in answers] == [[[16, 8, 24, 16]], [[18, 10, 22, 14]]]
    engine.close(PATIENCE_S)
    assert old.closed
    assert new.closed


def test_swaps_under_load_drop_nothing_and_mix_nothing(tmp_path: Path) -> None:
    folders = [tiny_variant(tmp_path / f"side-{side}", side=side) for side in (8, 4)]
    engine = Engine(folders[0], workers=2, max_batch=4, max_queue=1000)
    done, answers, served = threading.Event(), [], [engine._served]

    def ask() -> None:
        while not done.is_set():
            answers.append(engine.submit(RED).result(PATIENCE_S))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for index in range(1, 21):
        served.append(engine.open(folders[index % 2]))
        engine.swap(served[-1])
        engine.submit(RED).result(PATIENCE_S)
    done.set()
    for client in clients:
        client.join(PATIENCE_S)
    counts = {name: sum(answer.model.name == name for answer in answers) for name in ("side-8", "side-4")}
    assert min(counts.values()) > 0
    assert sum(counts.values()) == len(answers)
    for answer in answers:
        (box,) = answer.detections.boxes.tolist()
        assert f"side-{box[2] - box[0]:g}" == answer.model.name
    engine.close(PATIENCE_S)
    assert all(one.closed for one in served)


def test_a_closed_engine_swaps_no_more(make: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make()
    engine.close(0)
    new = open_served(tiny_variant(tmp_path / "four", side=4))
    with pytest.raises(Closed):
        engine.swap(new)
    assert new.closed


def test_status_tells_what_was_reported(make: Callable[..., Engine]) -> None:
    engine = make()
    assert isinstance(engine.status().serving, Loaded)
    engine.report("cells version 8 is not served")
    assert engine.status().error == "cells version 8 is not served"
    engine.report("")
    assert engine.status().error == ""


def test_an_observer_sees_every_answer_and_may_fail(
    make: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    def observe(image: Any, options: Options, answer: Answer) -> None:
        seen.append((image, options, answer))
        raise ValueError("no room for more")

    engine = make(observer=observe)
    with caplog.at_level(logging.ERROR):
        answers = [engine.submit(RED, Options(conf=conf)).result(PATIENCE_S) for conf in (0.1, 0.2)]
        engine.close(PATIENCE_S)
    assert seen == [(RED, Options(conf=conf), answer) for conf, answer in zip((0.1, 0.2), answers, strict=True)]
    assert [str(record.exc_info[1]) for record in caplog.records] == ["no room for more"] * 2  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_an_engine_in_the_background_computes_with_the_lowest_priority(make: Callable[..., Engine]) -> None:
    seen = []
    engine = make(lambda _: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())), background=True)
    engine.submit(RED).result(PATIENCE_S)
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19


def test_a_model_that_does_not_open_is_an_error_of_the_background_too(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="purple"):
        Engine(tiny_variant(tmp_path / "v", operating_point={"per_class": {"purple": 0.5}}), background=True)
    assert crew() == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workers": 0}, "workers=0"),
        ({"threads": 0}, "threads=0"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"max_queue": 0}, "max_queue=0"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"batch_wait_ms": -1}, "batch_wait_ms=-1"),
        ({"batch_wait_ms": float("inf")}, "batch_wait_ms=inf"),
    ],
)
def test_a_setting_out_of_its_range_is_named(variant: Path, options: dict[str, float], named: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{named} "):
        Engine(variant, **options)  # type: ignore[arg-type]
    assert crew() == []
