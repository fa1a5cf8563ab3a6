from mlflow_yolo.tracking.events.tables import per_class_table


def test_a_row_is_a_split_and_a_class() -> None:
    table = per_class_table({"val": {"a,b": {"AP50": 0.5}, "c": {"AP50": 1.0}}})

    assert table == 'split,class,AP50\nval,"a,b",0.5\nval,c,1.0\n'


def test_without_classes_there_is_no_table() -> None:
    assert per_class_table({"val": {}}) == ""
