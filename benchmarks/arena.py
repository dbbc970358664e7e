"""Where the competitors of a row run in turns: one folder for downloads and disks, emptied before each run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from images import Images
from measure import Failed, measure
from peers import NOWHERE, Peer
from promises import NearNetwork, goes_on
from results import Entrant, Measured
from rows import Row
from webserver import warm

SLACK = 256 << 20


class Arena:
    """Runs competitors, ours with further `options` of slipstream import."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder
        self.options = options
        self.out, self.download, self.receipt = folder / "disk.img", folder / "download", folder / "receipt.json"
        self.env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}

    def compete(self, row: Row, images: Images, server: str, *, turns: int, peers: bool) -> Measured:
        """Run the competitors of a row in turns: ours, then each peer, then again."""
        path, reference = images.path(row.file), images.path(row.reference)
        print(f"{row.key}: {path.stat().st_size >> 20} MiB", flush=True)
        if shortage := self._shortage(path, reference):
            print(f"    skipped: {shortage}", flush=True)
            return Measured(skipped=shortage)
        warm(path)
        result = Measured(length=path.stat().st_size)
        scripts = self._enter(row, result, peers=peers)
        for turn in range(turns):
            field = [entrant for entrant in result.entrants if goes_on(entrant, result, row.promises)]
            for entrant in field:
                check = entrant.kind == "ours" or turn == 0
                self._turn(entrant, scripts[entrant.label], f"{server}/{path.name}", reference if check else None)
        self._clear()
        return result

    def _enter(self, row: Row, result: Measured, *, peers: bool) -> dict[str, str | None]:
        """Make an entrant of each competitor; return the scripts by label, None for ours."""
        rivals: list[Peer] = list(row.peers) if peers else []
        if any(isinstance(promise, NearNetwork) for promise in row.promises):
            rivals.insert(0, NOWHERE)
        result.entrants.append(Entrant(label="slipstream", kind="ours"))
        for rival in rivals:
            kind = "network" if rival is NOWHERE else "aside" if rival.aside else "peer"
            entrant = Entrant(label=rival.label, kind=kind, group=rival.group)
            if missing := [program for program in rival.needs if not shutil.which(program)]:
                entrant.error = f"skipped: not installed: {', '.join(missing)}"
            result.entrants.append(entrant)
        return {"slipstream": None, **{rival.label: rival.script for rival in rivals}}

    def _turn(self, entrant: Entrant, script: str | None, url: str, reference: Path | None) -> None:
        """Let one competitor run once, and compare its disk with the reference if there is one to compare with."""
        self._clear()
        try:
            run = measure(self._argv(script, url), env=self.env)
        except Failed as failure:
            entrant.error = str(failure)
            print(f"    {entrant.label}: {failure}", flush=True)
            return
        entrant.runs.append(run)
        print(f"    {run.wall:6.2f} s  {entrant.label}", flush=True)
        if entrant.kind == "network":
            return
        entrant.allocated = self.out.stat().st_blocks * 512
        if reference is not None and entrant.identical is not False:
            entrant.identical = _same(reference, self.out)
        if self.receipt.exists():
            receipt = json.loads(self.receipt.read_text())
            entrant.receipt = {key: value for key, value in receipt.items() if key not in ("source", "target")}

    def _argv(self, script: str | None, url: str) -> list[str]:
        """Return a peer's command, or ours for None."""
        if script is not None:
            filled = script.format(url=url, folder=self.folder, download=self.download, out=self.out)
            return ["bash", "-o", "pipefail", "-ec", filled]
        command = [sys.executable, "-m", "slipstream", "import", url, str(self.out)]
        return [*command, "--quiet", "--receipt", str(self.receipt), *self.options]

    def _clear(self) -> None:
        """Remove what the last run left and let the disk come to rest."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        os.sync()

    def _shortage(self, image: Path, reference: Path) -> str:
        """Return why there is no room for a download and a disk, "" if there is."""
        needed = image.stat().st_size + reference.stat().st_blocks * 512 + SLACK
        free = shutil.disk_usage(self.folder.parent).free
        return f"needs {needed >> 20} MiB of disk, {free >> 20} are free" if free < needed else ""


def _same(reference: Path, disk: Path) -> bool:
    """Return whether qemu-img finds two raw disks identical."""
    return subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", str(reference), str(disk)]).returncode == 0
