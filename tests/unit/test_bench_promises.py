"""What the benchmark's promises mean: arithmetic on measured runs, no run needed."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from measure import Run, kibibytes
from promises import MIB, Faster, Memory, NearNetwork, Ties, goes_on, judge, turns_of
from results import Entrant, Measured


def entrant(kind: str, walls: list[float], *, label: str = "", group: str = "", fetched: int = 0, pss: int = MIB) -> Entrant:
    receipt = {"bytes_fetched": fetched} if fetched else {}
    runs = [Run(wall=wall, cpu=wall, pss=pss) for wall in walls]
    return Entrant(label=label or kind, kind=kind, group=group, runs=runs, receipt=receipt)


def row(ours: list[float], **peers: list[float]) -> Measured:
    rivals = [entrant("peer", walls, label=name, group=name) for name, walls in peers.items()]
    return Measured(length=1000, entrants=[entrant("ours", ours), *rivals])


def test_the_fastest_peer_counts_by_its_median():
    verdict = judge(Faster(times=2.0), row([1.0, 1.0, 9.0], slow=[9.0, 9.0, 9.0], fast=[2.0, 1.0, 2.0]))
    assert (verdict.holds, verdict.against) == (True, "fast")
    assert judge(Faster(times=2.1), row([1.0], fast=[2.0])).holds is False


def test_a_named_peer_counts_though_another_is_faster():
    measured = row([1.0], pigz=[2.5], igzip=[1.1])
    assert judge(Faster(times=2.2, than="pigz"), measured).holds is True
    assert judge(Faster(times=1.2, than="igzip"), measured).holds is False
    assert judge(Faster(times=1.0, than="lz4"), measured).holds is None


def test_an_aside_is_no_rival():
    measured = row([1.0], peer=[3.0])
    measured.entrants.append(entrant("aside", [0.5]))
    assert judge(Faster(times=2.0), measured).against == "peer"


def test_a_tie_is_the_median_of_the_pairs_of_turns():
    ours, theirs = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0], [0.95, 1.9, 0.95, 1.9, 0.95, 1.9, 0.1]
    assert judge(Ties(), row(ours, peer=theirs)).holds is True  # medians alone would say 0.95 too, one bad turn says nothing
    assert judge(Ties(), row(ours, peer=[0.5, *theirs[1:4], 0.5, 1.0, 0.1])).holds is False


def test_a_tie_needs_all_its_pairs():
    verdict = judge(Ties(), row([1.0] * 6, peer=[5.0] * 6))
    assert verdict.holds is None
    assert "6 pairs only" in verdict.measured


@pytest.mark.parametrize(("wall", "holds"), [(10.7, True), (10.9, False)])
def test_network_time_is_our_bytes_at_the_rate_of_a_download_to_nowhere(wall: float, holds: bool):
    ours = entrant("ours", [wall], fetched=2000)
    assert judge(NearNetwork(), Measured(length=1000, entrants=[ours, entrant("network", [5.0])])).holds is holds


def test_without_a_receipt_or_a_download_to_nowhere_network_time_is_not_judged():
    assert judge(NearNetwork(), Measured(length=1, entrants=[entrant("ours", [1.0], fetched=1)])).holds is None
    assert judge(NearNetwork(), Measured(length=1, entrants=[entrant("ours", [1.0]), entrant("network", [1.0])])).holds is None


def test_memory_is_the_most_of_any_run():
    ours = entrant("ours", [1.0, 1.0], pss=199 * MIB)
    assert judge(Memory(), Measured(entrants=[ours])).holds is True
    ours.runs.append(Run(wall=1.0, cpu=1.0, pss=201 * MIB))
    assert judge(Memory(), Measured(entrants=[ours])).holds is False


@pytest.mark.parametrize("promise", [Faster(times=0.1), Ties(), NearNetwork(), Memory()])
def test_a_wrong_disk_or_a_failed_import_holds_no_promise(promise: Faster | Ties | NearNetwork | Memory):
    wrong = row([1.0] * 7, peer=[9.0] * 7)
    wrong.entrants[0].identical = False
    assert judge(promise, wrong).holds is False
    for failed in (row([], peer=[9.0] * 7), row([1.0], peer=[9.0])):
        failed.entrants[0].error = "exit 70"
        assert judge(promise, failed).holds is False
    assert judge(promise, Measured(skipped="not root")).holds is None


def test_ties_take_seven_turns_and_all_else_three():
    assert turns_of((Faster(times=2.0), Ties(), Memory())) == 7
    assert turns_of((Faster(times=2.0), Memory())) == 3


def who_goes_on(measured: Measured, *promises: Faster | Ties | NearNetwork) -> set[str]:
    return {one.label for one in measured.entrants if goes_on(one, measured, promises)}


def test_who_cannot_become_the_best_runs_once():
    measured = row([1.0], fast=[2.0], close=[2.2], slow=[2.4])
    assert who_goes_on(measured, Faster(times=1.0)) == {"ours", "fast", "close"}


def test_from_the_third_turn_on_only_the_fastest_goes_on():
    assert who_goes_on(row([1.0] * 3, fast=[2.0] * 3, close=[2.1] * 3), Ties()) == {"ours", "fast"}


def test_the_fastest_of_a_named_group_runs_three_times():
    promises = (Faster(times=2.2, than="pigz"), Faster(times=1.0, than="igzip"))
    assert who_goes_on(row([1.0], igzip=[1.0], pigz=[3.0], dd=[3.0]), *promises) == {"ours", "igzip", "pigz"}
    assert who_goes_on(row([1.0], igzip=[1.0], pigz=[3.0, 3.0, 3.0]), *promises) == {"ours", "igzip"}


def test_where_no_promise_compares_with_peers_only_the_fastest_goes_on():
    measured = row([1.0], fast=[2.0], close=[2.1])
    measured.entrants.append(entrant("network", [0.9]))
    assert who_goes_on(measured, NearNetwork()) == {"ours", "fast", "network"}


def test_who_failed_or_is_missing_does_not_run_again_and_an_aside_runs_once():
    measured = row([1.0], peer=[1.0])
    assert goes_on(entrant("aside", []), measured, ()) is True
    assert goes_on(entrant("aside", [0.1]), measured, ()) is False
    absent = entrant("peer", [])
    absent.error = "skipped: not installed: nbdkit"
    assert goes_on(absent, measured, ()) is False


walls = st.lists(st.floats(0.01, 1000), min_size=1, max_size=9)


@given(ours=walls, peers=st.lists(walls, min_size=1, max_size=4))
def test_the_fastest_peer_always_goes_on_so_that_every_turn_has_its_pair(ours: list[float], peers: list[list[float]]):
    measured = row(ours, **{f"p{index}": found for index, found in enumerate(peers)})
    best = measured.best()
    assert best is not None
    assert goes_on(best, measured, (Faster(times=1.0),))


def test_memory_is_read_from_what_the_kernel_prints():
    rollup = "7f00-7f01 ---p 00000000 00:00 0    [rollup]\nRss:   900 kB\nPss:            130 kB\nPss_Dirty:        7 kB\n"
    assert kibibytes("Pss", rollup) == 130 << 10
    assert kibibytes("Pss", "") == 0
