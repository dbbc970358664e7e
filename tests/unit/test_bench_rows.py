"""The benchmark's rows: that each can be run, judged and printed."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import networks
import rows
from images import RECIPES
from measure import Run
from plot import svg
from promises import Faster, NearNetwork, Ties
from results import Entrant, Measured
from tables import Outcome, entrant_table, page, promise_table, text

ROWS = pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.key)
BUILT = {*RECIPES, "disk.raw", "random.raw", "disk-used.qcow2"}


def outcome(row: rows.Row) -> Outcome:
    entrants = [Entrant(label=peer.label, kind="peer", group=peer.group) for peer in row.peers]
    for entrant in (ours := Entrant(label="slipstream", kind="ours"), *entrants):
        entrant.runs = [Run(wall=2.0, cpu=1.0, pss=1 << 20)] * 7
    ours.receipt = {"bytes_fetched": 1 << 20}
    return Outcome(row=row, measured=Measured(length=1 << 20, entrants=[ours, *entrants]))


def test_every_row_has_a_name_of_its_own():
    assert len({row.key for row in rows.ROWS}) == len(rows.ROWS)
    assert {row.network for row in rows.ROWS} == set(networks.NETWORKS)


@ROWS
def test_every_row_has_an_image_peers_of_different_names_and_peers_for_its_promises(row: rows.Row):
    assert row.file in BUILT
    assert len({peer.label for peer in row.peers}) == len(row.peers) > 0
    named = {promise.than for promise in row.promises if isinstance(promise, Faster)} - {None}
    assert named <= {peer.group for peer in row.peers if not peer.aside}


@ROWS
def test_every_peer_is_a_script_that_a_shell_can_read(row: rows.Row):
    for peer in row.peers:
        script = peer.script.format(url="http://x/y", folder="/f", download="/f/d", out="/f/o")
        done = subprocess.run(["bash", "-nc", script], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        assert script.endswith("sync /f/o"), "the wall must end with fsync"
        assert peer.needs, "a peer that is not installed could not be skipped by name"


def test_the_promises_are_those_of_the_issues():
    def of(row: rows.Row) -> list[tuple[float, str | None]]:
        return [(promise.times, promise.than) for promise in row.promises if isinstance(promise, Faster)]

    told = {row.key: of(row) for row in rows.ROWS if of(row)}
    assert told == {
        "loopback/raw": [(1.5, None)],
        "loopback/qcow2": [(1.5, None)],
        "loopback/qcow2-zlib": [(1.1, None)],
        "loopback/qcow2-zstd": [(1.1, None)],
        "loopback/raw.gz": [(1.5, None)],
        "loopback/raw.zst": [(1.5, None)],
        "lan/raw": [(1.3, "nbdcopy")],
        "lan/random": [(1.0, None)],
        "lan/qcow2-zlib": [(2.5, None)],
        "lan/qcow2-zstd": [(1.8, None)],
        "lan/vhdx": [(1.8, None)],
        "lan/vmdk-stream": [(2.5, None)],
        "lan/raw.gz": [(1.0, "igzip | dd"), (2.2, "pigz | dd")],
        "lan/raw.zst": [(1.2, "zstd --sparse"), (2.0, "zstd | dd")],
        "wan/qcow2-zlib": [(4.0, "curl + convert"), (1.3, "aria2c + convert")],
    }
    assert [row.key for row in rows.ROWS if Ties() in row.promises] == ["lan/qcow2", "lan/raw.xz", "wan/raw"]
    assert [row.key for row in rows.ROWS if NearNetwork() in row.promises] == ["gigabit/raw", "gigabit/qcow2"]


def test_rows_are_chosen_by_name_by_network_or_by_both():
    assert [row.key for row in rows.chosen(["lan", "wan"], "qcow2")] == ["lan/qcow2", "wan/qcow2"]
    assert [row.key for row in rows.chosen(["lan", "wan"], "wan/qcow2,lan/raw")] == ["lan/raw", "wan/qcow2"]
    assert "loopback/vdi" not in [row.key for row in rows.chosen(["loopback"], "promised")]
    assert "loopback/vdi" in [row.key for row in rows.chosen(["loopback"], "all")]
    with pytest.raises(KeyError, match="disk"):
        rows.chosen(["lan"], "raw,disk")


@ROWS
def test_a_row_is_printed_whatever_became_of_it(row: rows.Row):
    for shown in (outcome(row), Outcome(row=row, measured=Measured(skipped="not root"))):
        table = text(promise_table([shown])) + text(entrant_table([shown]))
        assert row.key in table
        assert all(str(promise) in table for promise in row.all_promises)
        assert ("not root" in table) is bool(shown.measured.skipped)


def test_the_page_has_a_cell_for_every_column_in_spite_of_pipes():
    shown = page([outcome(row) for row in rows.ROWS], {"cores": 2}, "plot.svg")
    lines = [line.replace("\\|", "") for line in shown.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in lines} == {6, 11}


def test_the_plot_is_an_svg_with_both_bars_of_every_row():
    found = ElementTree.fromstring(svg([outcome(row) for row in rows.ROWS], "a & b"))
    bars = [shape for shape in found.iter() if shape.tag.endswith("rect")]
    assert len(bars) == 1 + 2 * len(rows.ROWS)


def test_a_missing_program_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(networks.os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(networks.Unavailable, match="not installed: ip, tc"), networks.lan(tmp_path, tmp_path):
        pass


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(networks.os, "geteuid", lambda: 1000)
    with pytest.raises(networks.Unavailable, match="not root"), networks.gigabit(tmp_path, tmp_path):
        pass
