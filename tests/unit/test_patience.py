from importer.pipeline.patience import Patience, Policy


def patience(**policy: float) -> Patience:
    return Patience(policy=Policy(**policy), connections=4)  # type: ignore[arg-type]


def broke(
    subject: Patience, now: float = 0.0, *, crowded: bool = False, retry_after: float | None = None, chance: float = 0.5
) -> float:
    return subject.broke(now, began=now, crowded=crowded, retry_after=retry_after, chance=chance)


def test_delays_double_once_all_connections_failed_and_are_bounded() -> None:
    subject = patience(first_delay=1.0, longest_delay=8.0)
    assert [broke(subject, chance=1.0) for _ in range(20)] == [1.0] * 4 + [2.0] * 4 + [4.0] * 4 + [8.0] * 8


def test_chance_halves_a_delay_at_most() -> None:
    assert broke(patience(first_delay=1.0), chance=0.0) == 0.5


def test_a_crowded_server_gets_fewer_connections_down_to_one() -> None:
    subject = patience()
    for expected in (3, 2, 1, 1):
        broke(subject, crowded=True)
        assert subject.connections == expected


def test_retry_after_is_honoured_within_the_time_to_give_up() -> None:
    subject = patience(give_up_seconds=30.0)
    assert broke(subject, crowded=True, retry_after=7.0) == 7.0
    assert broke(subject, crowded=True, retry_after=3600.0) == 30.0


def test_a_server_that_refuses_at_once_is_given_the_whole_time() -> None:
    subject = patience(give_up_seconds=300.0)
    now = 0.0
    while not subject.exhausted(now):
        now += broke(subject, now)
    assert 300.0 <= now < 330.0


def test_enough_bytes_end_the_trouble_but_a_trickle_does_not() -> None:
    subject = patience(give_up_seconds=10.0, stall_bytes=1000)
    broke(subject, 0.0)
    for second in range(10):
        subject.progressed(float(second), 10)
    assert subject.exhausted(10.0)
    subject.progressed(10.0, 900)
    assert not subject.exhausted(1000.0)


def test_an_idle_consumer_is_no_trouble() -> None:
    assert not patience().exhausted(1e9)


def test_a_fulfilled_attempt_ends_the_trouble() -> None:
    subject = patience(give_up_seconds=1.0)
    broke(subject, 0.0)
    subject.recovered()
    assert not subject.exhausted(100.0)
