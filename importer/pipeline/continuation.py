"""An unfinished disk with its journal: taken up where an import stopped, kept when one stops that may go on, else removed."""

import asyncio
from contextlib import suppress

from importer.api.failure import Failure
from importer.disk.journal import Bond, Damaged, Past
from importer.disk.target import Target
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.digest import Digests
from importer.pipeline.meter import Meter
from importer.pipeline.resume import Resume, decide
from machinery.process import hash_state


class Continuation:
    """What one import does with what an earlier one left, and what it leaves itself."""

    def __init__(self, target: Target, digests: Digests, meter: Meter) -> None:
        """Watch over a target that was opened with what is in it."""
        self.resume = Resume()
        self.checkpoints: Checkpoints | None = None
        self._target = target
        self._digests = digests
        self._meter = meter
        self._journal = target.journal()

    def begin(self, bond: Bond | None, *, restart: bool) -> None:
        """Go on from what there is, if that belongs to `bond`; else begin anew. None: this import cannot be gone on with.

        Blocks briefly. Raises Failure.
        """
        self.resume = self._decided(bond, restart)
        if self.resume.note:
            self._meter.note(self.resume.note)
        if self.resume.begins_anew:
            self._journal.remove()  # before the data that it speaks of
            self._target.empty()
        if self.resume.hashed is not None:
            self._digests.go_on(self.resume.hashed)
        if bond is not None:
            self._journal.begin(Past(bond=bond, done=self.resume.done, hashed=self.resume.hashed))
            self.checkpoints = Checkpoints(self._journal, self._target, self._digests)

    def _decided(self, bond: Bond | None, restart: bool) -> Resume:
        try:
            past = self._journal.read()
        except Damaged as damage:
            return Resume(note=f"begun anew: the journal of an earlier import cannot be used: {damage}")
        if bond is None:
            return Resume()
        wanted = self._digests.algorithms
        return decide(bond, past, restart=restart, maker=hash_state.maker(), algorithms=wanted)

    def published(self) -> None:
        """The disk is there under its name: nothing is left to go on with."""
        self._end()
        with suppress(Failure):  # a journal without its partial does no harm
            self._journal.remove()
        self._journal.close()

    def broken(self, error: BaseException) -> None:
        """Keep the partial if the same command may go on with it, else leave nothing."""
        self._end()
        if self.checkpoints is not None and _may_go_on(error):
            with suppress(Failure):
                self.checkpoints.save()
            if self.checkpoints.saved or not self.resume.begins_anew:
                self._meter.note("what was imported is kept: the same command goes on from there, or begins anew with --restart")
                self._journal.close()
                self._target.leave()
                return
        with suppress(Failure):
            self._journal.remove()
        self._journal.close()
        self._target.discard()

    def _end(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.rest()


def _may_go_on(error: BaseException) -> bool:
    if isinstance(error, Failure):
        return error.entry.retryable
    return isinstance(error, asyncio.CancelledError)
