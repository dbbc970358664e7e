"""An unfinished disk with its journal: taken up where an import stopped, kept when one stops that may go on, else removed."""

import asyncio
import os
from contextlib import suppress

from importer.api.failure import Failure
from importer.api.report import Receipt
from importer.api.request import ImportRequest
from importer.disk.journal import Bond, Damaged, Finished, Past
from importer.disk.landing import Landing
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.digest import Digests
from importer.pipeline.meter import Meter
from importer.pipeline.resume import AGAIN, Resume, command, decide
from machinery.process import hash_state


class Continuation:
    """What one import does with what an earlier one left, and what it leaves itself."""

    def __init__(self, target: Landing, digests: Digests, meter: Meter) -> None:
        """Watch over a target that was opened with what is in it."""
        self.resume = Resume()
        self.checkpoints: Checkpoints | None = None
        self._target = target
        self._digests = digests
        self._meter = meter
        self._journal = target.journal()
        self._began = False
        self._amendable = False
        """True if what is in the target is of use without a record of it."""

    def begin(self, bond: Bond | None, *, restart: bool, piece: int) -> None:
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
            resume = self.resume
            self._journal.begin(Past(bond=bond, done=resume.done, hashed=resume.hashed, mark=resume.mark))
            self._began = True
            self._amendable = bond.way in AGAIN
            self.checkpoints = Checkpoints(self._journal, self._target, self._digests, resume, piece=piece)

    def _decided(self, bond: Bond | None, restart: bool) -> Resume:
        try:
            past = self._journal.read()
        except Damaged as damage:
            return Resume(note=f"begun anew: the journal of an earlier import cannot be used: {damage}")
        if bond is None or past is None:
            return Resume()
        if self._target.is_new():
            return Resume(note="begun anew: the unfinished disk that the journal speaks of is gone")
        wanted = self._digests.algorithms
        return decide(bond, past, restart=restart, maker=hash_state.maker(), algorithms=wanted)

    def settle(self) -> None:
        """Make sure that every checkpoint held: a device tells of a lost write but once. Raises Failure."""
        if self.checkpoints is not None:
            self.checkpoints.rest()

    def finishing(self, request: ImportRequest, receipt: Receipt) -> None:
        """Write down that the disk is whole and about to be published. It must be on the device."""
        with suppress(Failure):  # without it, all that is lost is that a kill at this very moment is understood
            self._finishing(request, receipt)

    def _finishing(self, request: ImportRequest, receipt: Receipt) -> None:
        facts = os.fstat(self._target.fd)
        if not self._began:
            nothing = Bond(request={}, source={}, target=self._target.identity, way="", piece=0)
            self._journal.begin(Past(bond=nothing))
        self._journal.finish(
            Finished(
                file=self._target.identity,
                size=facts.st_size,
                modified=facts.st_mtime_ns,
                request=command(request),
                receipt=receipt.as_json(),
            )
        )

    def published(self) -> None:
        """The disk is there under its name: nothing is left to go on with."""
        with suppress(Failure):  # a journal without its partial does no harm
            self._journal.remove()
        self._journal.close()

    def broken(self, error: BaseException) -> None:
        """Keep the partial if the same command may go on with it, else leave nothing."""
        if self.checkpoints is not None and _may_go_on(error):
            with suppress(Failure):
                self.checkpoints.save()
            if self.checkpoints.saved or not self.resume.begins_anew or self._amendable:
                self._meter.note("what was imported is kept: the same command goes on from there, or begins anew with --restart")
                self._journal.close()
                self._target.leave()
                return
        with suppress(Failure):
            self.settle()
        with suppress(Failure):
            self._journal.remove()
        self._journal.close()
        self._target.discard()


def _may_go_on(error: BaseException) -> bool:
    if isinstance(error, Failure):
        return error.entry.retryable
    return isinstance(error, asyncio.CancelledError)
