"""What an import tells while nothing arrives: that is when somebody looks."""

import itertools
import json
from pathlib import Path

from builders import content
from command import Outcome, importing
from fakes import behaviours as bad
from fakes.badhttp import BadServer

RAW = content.seeded(bad.BIG, 21)
SILENCE = {"SLIPSTREAM_STALL_SECONDS": "2", "SLIPSTREAM_GIVE_UP_SECONDS": "6"}


def silenced(landing: Path, *options: str) -> Outcome:
    """Import from a server that falls silent once it has shown head and tail."""
    with BadServer(bad.stalling(RAW, 0, first=2)) as server:
        return importing(server.url(), landing, *options, env=SILENCE)


def test_lines_go_on_while_nothing_arrives(landing: Path) -> None:
    outcome = silenced(landing).failed(75, "stalled")
    assert outcome.err.count("transferring: 1") >= 2, outcome.said


def test_json_lines_go_on_while_nothing_arrives(landing: Path) -> None:
    outcome = silenced(landing, "--json").failed(75, "stalled")
    events = [json.loads(line) for line in outcome.out.splitlines()]
    still = [one["seconds"] for one in events if one["event"] == "progress" and one["phase"] == "transferring"]
    assert len(still) >= 4, outcome.said
    assert all(later - earlier < 3 for earlier, later in itertools.pairwise(still)), still
