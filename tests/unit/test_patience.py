from importer.pipeline.patience import Patience, Policy


def patience(**policy: float) -> Patience:
    return Patience(policy=Policy(**policy), connections=4)  # type: ignore[arg-type]


def test_delays_double_and_are_bounded() -> None:
    subject = patience(first_delay=1.0, longest_delay=8.0, fruitless_attempts=99)
    delays = [subject.broke("reset", crowded=False, retry_after=None, chance=1.0) for _ in range(6)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_chance_halves_a_delay_at_most() -> None:
    assert patience(first_delay=1.0).broke("reset", crowded=False, retry_after=None, chance=0.0) == 0.5


def test_a_crowded_server_gets_fewer_connections_down_to_one() -> None:
    subject = patience()
    for expected in (3, 2, 1, 1):
        subject.broke("503", crowded=True, retry_after=None, chance=0.5)
        assert subject.connections == expected


def test_retry_after_is_honoured_within_the_time_to_give_up() -> None:
    subject = patience(give_up_seconds=30.0)
    assert subject.broke("429", crowded=True, retry_after=7.0, chance=0.5) == 7.0
    assert subject.broke("429", crowded=True, retry_after=3600.0, chance=0.5) == 30.0


def test_progress_resets_what_was_fruitless() -> None:
    subject = patience(fruitless_attempts=3)
    for _ in range(3):
        subject.broke("reset", crowded=False, retry_after=None, chance=0.5)
    assert subject.exhausted(0.0)
    subject.progressed(1.0)
    assert not subject.exhausted(1.0)


def test_silence_longer_than_the_limit_exhausts() -> None:
    subject = patience(give_up_seconds=300.0)
    subject.progressed(1000.0)
    assert not subject.exhausted(1300.0)
    assert subject.exhausted(1300.1)
