"""The number of connections follows what they bring, in simulated time."""

import itertools
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.pipeline.adapt import FEW, MANY, NEAR, Adaptation

MB = 1e6


def simulated(
    subject: Adaptation,
    rate: Callable[[int], float],
    seconds: float,
    *,
    consumer: float = 1e12,
    noise: float = 0.0,
    seed: int = 1,
) -> list[tuple[float, int]]:
    """Let `rate(count)` bytes a second arrive, as far as the consumer takes them; return each count with its time."""
    random, now, seen = Random(seed), 0.0, [(0.0, subject.count)]
    while now < seconds:
        offered = rate(subject.count) * (1 + random.uniform(-noise, noise))
        if offered > consumer:
            subject.waited(0.01 * subject.count * (1 - consumer / offered))
        now += 0.01
        if subject.arrived(now, int(min(offered, consumer) * 0.01)):
            seen.append((now, subject.count))
    return seen


def wide(count: int) -> float:
    """30 MB/s a connection, 125 MB/s in all."""
    return min(30 * MB * count, 125 * MB)


def test_a_far_server_gets_eight_at_once() -> None:
    subject = Adaptation(most=8, latency=0.04)
    assert simulated(subject, wide, 10) == [(0.0, 8)]
    assert "begun with 8" in subject.reason
    assert "40 ms" in subject.reason


def test_a_near_server_that_limits_each_connection_gets_eight_within_a_second() -> None:
    subject = Adaptation(most=8, latency=0.0003)
    seen = simulated(subject, lambda count: 30 * MB * count, 10)
    assert [count for _, count in seen] == [4, 6, 8]
    assert seen[-1][0] < 1.0
    assert "2 more brought +50 %: 6 kept" in subject.reason


def test_connections_that_bring_nothing_are_given_back_and_tried_ever_more_seldom() -> None:
    subject = Adaptation(most=32, latency=0.0003)
    seen = simulated(subject, lambda _: 1000 * MB, 60, noise=0.05)
    assert {count for _, count in seen} == {4, 6}
    assert subject.count == 4
    trials = [at for at, count in seen if count == 6]
    assert len(trials) <= 5
    spent = sum(back - at for (at, count), (back, _) in itertools.pairwise(seen) if count == 6)
    assert spent < 0.05 * 60
    assert "back to 4" in subject.reason


def test_growth_ends_where_the_link_is_full() -> None:
    subject = Adaptation(most=32, latency=0.0003)
    simulated(subject, lambda count: min(25 * MB * count, 200 * MB), 4)
    assert subject.count == 8


def test_a_slow_consumer_is_no_reason_for_more_connections() -> None:
    subject = Adaptation(most=32, latency=0.0003)
    assert simulated(subject, lambda count: 100 * MB * count, 30, consumer=150 * MB) == [(0.0, 4)]


@pytest.mark.parametrize("latency", [0.0001, 0.04, None])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 9])
def test_what_the_user_gave_is_never_exceeded(most: int, latency: float | None) -> None:
    subject = Adaptation(most=most, latency=latency)
    seen = simulated(subject, lambda count: 10 * MB * count, 20)
    assert max(count for _, count in seen) == most
    assert subject.count == most


def test_a_crowded_server_lowers_the_bound_for_good() -> None:
    subject = Adaptation(most=8, latency=0.04)
    subject.disturbed(1.0, 7)
    subject.disturbed(1.1, 6)
    assert subject.count == 6
    assert max(count for _, count in simulated(subject, lambda count: 10 * MB * count, 20)) == 6
    assert "the server is crowded" in subject.reason


@given(
    st.integers(1, 32), st.one_of(st.none(), st.floats(0, 1)), st.floats(1, 1e9), st.floats(1, 1e10), st.floats(1, 1e10),
    st.floats(0, 0.5), st.integers(0, 99), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 32)), max_size=3),
)  # fmt: skip
def test_the_count_stays_within_its_bounds_whatever_happens(
    most: int, latency: float | None, each: float, link: float, consumer: float, noise: float, seed: int,
    troubles: list[tuple[float, int]],
) -> None:  # fmt: skip
    subject = Adaptation(most=most, latency=latency)
    start = subject.count
    assert start == min(most, MANY if latency is not None and latency > NEAR else FEW)
    for at, bound in troubles:
        subject.disturbed(at, min(subject.most, bound))
    seen = simulated(subject, lambda count: min(each * count, link), 6, consumer=consumer, noise=noise, seed=seed)
    assert all(1 <= count <= subject.most for _, count in seen)
    assert subject.reason
