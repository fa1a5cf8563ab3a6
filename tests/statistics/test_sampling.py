from mlflow_yolo.statistics.sampling import Sampling, sampling_interval


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def sampled(
    sampling: Sampling, clock: Clock, n_steps: int, *, step: float = 1.0, sample: float = 0.0, other: float = 0.0
) -> list[int]:
    """Return the sampled steps of an epoch in which a step, a sample and another look take so many seconds."""
    found = []
    for i in range(n_steps):
        clock.now += step
        with sampling.spending():
            is_due = sampling.is_due(i)
            clock.now += sample if is_due else other
        found += [i] * is_due
    sampling.start_epoch()
    return found


def sampling_of(clock: Clock, *, steps: int | None = None, every: int | None = None, budget: float = 0.01) -> Sampling:
    return Sampling(steps, every_n_steps=every, budget=budget, clock=clock)


def test_an_epoch_has_about_twenty_samples() -> None:
    assert [sampling_interval(n) for n in (0, 1, 19, 20, 59, 400)] == [1, 1, 1, 1, 2, 20]


def test_the_first_three_steps_of_a_training_and_the_last_of_an_epoch_are_sampled() -> None:
    sampling = sampling_of(clock := Clock(), steps=80)
    assert sampled(sampling, clock, 80) == [0, 1, 2, *range(4, 80, 4), 79]
    assert sampled(sampling, clock, 80) == [*range(0, 80, 4), 79]


def test_an_interval_is_kept_to_whatever_it_costs() -> None:
    sampling = sampling_of(clock := Clock(), steps=10, every=4)
    assert sampled(sampling, clock, 10, sample=100.0) == [0, 4, 8]
    assert sampled(sampling, clock, 10, sample=100.0) == [0, 4, 8]


def test_samples_stay_within_their_share_of_the_time() -> None:
    sampling = sampling_of(clock := Clock(), budget=0.01)
    found = sampled(sampling, clock, 1000, step=1.0, sample=0.1)
    assert found[:4] == [0, 1, 2, 39]  # 0.4 s are 1 % of 40 s
    assert 0.1 * len(found) <= 0.01 * (1000 + 0.1 * len(found))
    assert 0.1 * (len(found) + 1) > 0.01 * 1000  # and they use it


def test_the_share_counts_looks_that_are_not_samples() -> None:
    sampling = sampling_of(clock := Clock(), budget=0.01)
    assert sampled(sampling, clock, 1000, sample=0.1, other=0.02) == [0, 1, 2]


def test_time_after_the_last_step_is_not_training() -> None:
    sampling = sampling_of(clock := Clock(), steps=1000, budget=0.01)
    for i in range(3):
        clock.now += 1.0
        with sampling.spending():
            assert sampling.is_due(i)
            clock.now += 1.0
    clock.now += 1e6  # a validation
    with sampling.spending(is_step=False):
        clock.now += 0.001
    sampling.start_epoch()
    assert sampled(sampling, clock, 100, step=1.0, sample=1.0) == []


def test_collecting_after_an_epoch_is_spent_but_no_time_of_training() -> None:
    sampling = sampling_of(clock := Clock(), budget=0.01)
    sampled(sampling, clock, 3, step=1000.0, sample=0.1)  # 30 s to spend
    with sampling.spending(is_step=False):
        clock.now += 40.0
    sampling.start_epoch()
    assert sampled(sampling, clock, 10, step=1.0, sample=0.1) == []


def test_a_new_number_of_steps_moves_the_last_one() -> None:
    sampling = sampling_of(clock := Clock(), steps=40, budget=0.0)
    sampled(sampling, clock, 40, sample=1.0)
    sampling.start_epoch(10)
    assert sampled(sampling, clock, 10, sample=1.0) == [9]
