from dataclasses import replace

from mlflow_yolo.deployment.http.measures import Measures
from tests.deployment.serving import MODEL, StandIn


def test_a_swap_is_counted_once_and_late_answers_of_the_old_model_are_none() -> None:
    backend = StandIn()
    measures = Measures(backend.status)
    old = backend.answer()
    measures.count_answer(old)
    backend.model = replace(MODEL, version="8")
    measures.count_answer(backend.answer())
    measures.count_answer(old)
    measures.count_answer(backend.answer())
    text = measures.text().decode()
    assert "mlflow_yolo_model_swaps_total 1.0" in text
    assert 'version="8"' in text
    assert 'version="7"' not in text


def test_what_waits_and_what_failed_is_asked_when_it_is_read() -> None:
    backend = StandIn(waits=True)
    measures = Measures(backend.status)
    backend.submit(b"")
    backend.error = "version 8 is damaged"
    lines = measures.text().decode().splitlines()
    assert {"mlflow_yolo_queue 1.0", "mlflow_yolo_update_failed 1.0"} <= set(lines)


def test_two_servers_of_one_process_count_for_themselves() -> None:
    first, second = Measures(StandIn().status), Measures(StandIn().status)
    first.count_request("/predict", 200, 0.1)
    assert 'path="/predict"' in first.text().decode()
    assert 'path="/predict"' not in second.text().decode()
