"""When a tool that does nothing is given up."""

from hypothesis import given
from hypothesis import strategies as st

from importer.disk.standstill import Signs, Standstill

LIMIT = 10.0


def signs(served: int = 0, moved: int = 0, *, held: bool = False) -> Signs:
    return Signs(served=served, moved=moved, held=held)


def test_a_tool_that_does_nothing_is_given_up_after_the_limit() -> None:
    watch = Standstill(LIMIT)
    assert [watch.hopeless(now, signs(3, 5)) for now in (100.0, 105.0, 109.9, 110.0)] == [False, False, False, True]


def test_a_read_or_a_byte_begins_the_wait_anew() -> None:
    for change in (signs(served=1), signs(moved=1)):
        watch = Standstill(LIMIT)
        assert not watch.hopeless(0.0, signs())
        assert not watch.hopeless(9.0, change)
        assert not watch.hopeless(18.9, change)
        assert watch.hopeless(19.0, change)


def test_what_is_held_up_from_outside_is_waited_for() -> None:
    watch = Standstill(LIMIT)
    assert not any(watch.hopeless(float(now), signs(held=True)) for now in range(1000))
    assert not watch.hopeless(1008.0, signs())
    assert watch.hopeless(1009.0, signs())


@given(st.lists(st.tuples(st.floats(0.1, 30), st.booleans(), st.booleans()), max_size=40))
def test_it_is_given_up_exactly_when_every_look_for_the_limit_showed_nothing(looks: list[tuple[float, bool, bool]]) -> None:
    watch = Standstill(LIMIT)
    now, served, alive = 0.0, 0, 0.0
    assert not watch.hopeless(now, signs())
    for step, moves, held in looks:
        now += step
        served += moves
        if moves or held:
            alive = now
        assert watch.hopeless(now, signs(served, held=held)) == (now - alive >= LIMIT)
