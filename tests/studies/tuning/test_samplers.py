import json

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from mlflow_yolo.studies.tuning.dimensions import Dimension
from mlflow_yolo.studies.tuning.samplers import FreshSampler, GridSampler, grid, points_tried, seed_of
from mlflow_yolo.studies.tuning.search import make_pruner, make_sampler
from mlflow_yolo.studies.tuning.space import Space

FREEZE = Dimension("freeze", "int", 0, 11)
LR0 = Dimension("lr0", "float", 1e-4, 1e-1, log=True)
OPTIMIZER = Dimension("optimizer", "choice", choices=("SGD", "AdamW"))
EPOCHS = Dimension("epochs", "int", 5, 5)
SPACE = Space((FREEZE, LR0, OPTIMIZER, EPOCHS))
SMALL = Space((Dimension("freeze", "int", 0, 2), OPTIMIZER, EPOCHS))


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def made(sampler: BaseSampler, **more: object) -> Study:
    return optuna.create_study(direction="maximize", sampler=sampler, **more)


def value(params: dict) -> float:
    return -((params["freeze"] - 6) ** 2) - (params["optimizer"] == "SGD")


def run(study: Study, space: Space, n: int) -> list[dict]:
    points = []
    for _ in range(n):
        trial = study.ask(space.distributions())
        points.append(trial.params)
        study.tell(trial, value(trial.params))
    return points


@pytest.mark.parametrize("word", ["tpe", "nsga2", "random", "grid"])
def test_a_search_that_was_interrupted_goes_on_as_if_it_had_not_been(word: str) -> None:
    space = SMALL if word == "grid" else SPACE
    n = 6 if word == "grid" else 24
    whole = run(made(make_sampler(word, seed=3, space=space)), space, n)
    storage = optuna.storages.InMemoryStorage()
    parts = []
    for _ in range(3):  # a driver that is killed and started again has a new sampler and a new study object
        sampler = make_sampler(word, seed=3, space=space)
        study = optuna.create_study(
            direction="maximize", sampler=sampler, storage=storage, study_name="s", load_if_exists=True
        )
        parts += run(study, space, n // 3)
    assert parts == whole


def test_another_seed_searches_elsewhere() -> None:
    one, other = (run(made(make_sampler("random", seed=seed, space=SPACE)), SPACE, 5) for seed in (0, 1))
    assert one != other


def test_neighbouring_trials_and_seeds_share_no_seed() -> None:
    assert len({seed_of(seed, number) for seed in range(50) for number in range(50)}) == 2500
    assert all(0 <= seed_of(0, number) < 2**32 for number in range(100))


class Stubborn(RandomSampler):
    """Proposes the same point again and again, as a sampler does that has converged."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        return {"freeze": 1, "optimizer": "SGD", "lr0": 0.01}[param_name]


def test_a_point_that_was_tried_is_not_proposed_again() -> None:
    points = run(made(FreshSampler(SMALL, lambda seed: Stubborn(seed), seed=0)), SMALL, 6)
    assert points[0] == {"freeze": 1, "optimizer": "SGD", "epochs": 5}
    assert sorted(map(SMALL.key, points)) == sorted(map(SMALL.key, grid(SMALL.dimensions)))


def test_a_point_is_drawn_elsewhere_in_a_space_without_end_too() -> None:
    points = run(made(FreshSampler(SPACE, lambda seed: Stubborn(seed), seed=0)), SPACE, 5)
    assert len({SPACE.key(point) for point in points}) == 5
    assert all(SPACE.contains(point) for point in points)


def test_an_exhausted_space_gives_a_point_all_the_same() -> None:
    points = run(made(make_sampler("random", seed=0, space=SMALL)), SMALL, 8)
    assert len({SMALL.key(point) for point in points[:6]}) == 6
    assert all(SMALL.contains(point) for point in points)


def test_points_of_running_failed_and_enqueued_trials_are_not_proposed() -> None:
    study = made(make_sampler("grid", seed=0, space=SMALL))
    study.enqueue_trial({"freeze": 2, "optimizer": "AdamW", "epochs": 5})
    study.enqueue_trial({"freeze": 0, "optimizer": "SGD", "epochs": 5})
    first = study.ask(SMALL.distributions())  # the first enqueued one, running
    study.tell(first, state=TrialState.FAIL)
    asked = [study.ask(SMALL.distributions()).params for _ in range(5)]
    assert first.params == {"freeze": 2, "optimizer": "AdamW", "epochs": 5}
    assert asked[0] == {"freeze": 0, "optimizer": "SGD", "epochs": 5}
    assert len({SMALL.key(point) for point in [first.params, *asked]}) == 6


def test_an_enqueued_trial_that_names_only_some_dimensions_is_completed() -> None:
    study = made(make_sampler("tpe", seed=0, space=SPACE))
    study.enqueue_trial({"freeze": 7})
    params = study.ask(SPACE.distributions()).params
    assert params["freeze"] == 7
    assert SPACE.contains(params)


def test_a_trial_that_was_killed_between_two_values_keeps_the_one_it_has() -> None:
    study = made(make_sampler("random", seed=0, space=SMALL))
    half = study.ask({"freeze": FREEZE.distribution()} | {"freeze": SMALL.distributions()["freeze"]})
    again = optuna.Trial(study, half._trial_id)
    for name, distribution in SMALL.distributions().items():
        again._suggest(name, distribution)
    assert again.params["freeze"] == half.params["freeze"]
    assert SMALL.contains(again.params)


def test_the_grid_is_walked_whole_in_an_order_of_its_seed() -> None:
    orders = [run(made(make_sampler("grid", seed=seed, space=SMALL)), SMALL, 6) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    by_key = [sorted(map(SMALL.key, points)) for points in orders]
    assert by_key[0] == by_key[2] == sorted(map(SMALL.key, grid(SMALL.dimensions)))


def test_a_grid_is_the_product_of_its_values() -> None:
    assert grid((OPTIMIZER, Dimension("prune", "float", 0.0, 0.2, step=0.1))) == [
        {"optimizer": optimizer, "prune": prune} for optimizer in ("SGD", "AdamW") for prune in (0.0, 0.1, 0.2)
    ]


def test_under_hyperband_points_of_other_brackets_count_as_tried() -> None:
    study = made(GridSampler(SMALL, seed=0), pruner=make_pruner("hyperband", epochs=27), study_name="s")
    points = []
    for _ in range(6):
        trial = study.ask(SMALL.distributions())
        trial.report(0.5, 0)
        assert not trial.should_prune()  # and the brackets are there from now on
        study.tell(trial, 0.5)
        points.append(trial.params)
    assert len({study.pruner._get_bracket_id(study, trial) for trial in study.trials}) > 1
    assert len({SMALL.key(point) for point in points}) == 6


def test_tpe_finds_the_good_region_sooner_than_chance() -> None:
    best = {}
    for word in ("tpe", "random"):
        found = []
        for seed in range(4):
            points = run(made(make_sampler(word, seed=seed, space=SPACE)), SPACE, 30)
            found.append(sum(value(point) > -5 for point in points[15:]) / 15)
        best[word] = sum(found) / len(found)
    assert best["tpe"] > best["random"] + 0.1


@pytest.mark.slow
def test_the_gaussian_process_proposes_points_of_the_space() -> None:
    points = run(made(make_sampler("gp", seed=0, space=SPACE)), SPACE, 7)
    assert all(SPACE.contains(point) for point in points)
    assert len({SPACE.key(point) for point in points}) == 7


def test_constraints_turn_tpe_away_from_what_breaks_them() -> None:
    space = Space((Dimension("freeze", "int", 0, 1000),))
    kept = {}
    for bound in (500, 1000):  # the value rises with freeze
        study = made(make_sampler("tpe", seed=0, space=space))
        for _ in range(30):
            trial = study.ask(space.distributions())
            trial.set_constraint("c", (trial.params["freeze"] - bound) / bound)
            study.tell(trial, trial.params["freeze"])
        kept[bound] = sum(trial.params["freeze"] <= 500 for trial in study.trials[15:])
    assert kept[500] >= kept[1000] + 5


def test_points_are_told_by_all_trials_but_the_one_asked_for() -> None:
    study = made(make_sampler("random", seed=0, space=SMALL))
    params = study.ask(SMALL.distributions()).params
    assert points_tried(study, SMALL) == {SMALL.key(params)}
    assert points_tried(study, SMALL, but=0) == set()
    assert json.loads(SMALL.key(params)) == list(params.values())
