"""What a walk along a route is given, and what it leaves."""

from dataclasses import dataclass

from importer.api.request import ImportRequest
from importer.disk.chart import Course
from importer.disk.extents import Extents
from importer.disk.image import Format
from importer.disk.landing import Landing
from importer.disk.space import SpaceGuard
from importer.pipeline.checkpoint import Checkpoints
from importer.pipeline.digest import Digests
from importer.pipeline.judge import Found
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.resume import Resume
from importer.pipeline.route import Route
from importer.pipeline.writer import Wipe
from importer.sources.protocol import Source

NO_TOOL = "no tool was run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """Everything one walk needs."""

    request: ImportRequest
    source: Source
    found: Found
    extents: Extents | None
    course: Course | None
    route: Route
    target: Landing
    resume: Resume
    checkpoints: Checkpoints | None
    """Where it is written down what landed; None on ways that begin anew."""
    guard: SpaceGuard | None
    pinned: Pinned
    digests: Digests
    meter: Meter
    policy: Policy

    @property
    def wipe(self) -> Wipe | None:
        """What makes ranges of the target zero, None where all that is not written reads as zeroes.

        An interrupted import may have written anything where its record does not reach: a source may have lied then.
        """
        return None if self.target.reads_zero and self.resume.begins_anew else self.target.punch

    @property
    def connections(self) -> int:
        """How many to use."""
        return self.request.access.connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What a walk left in the target."""

    format: Format
    virtual_size: int
    sandbox: str = NO_TOOL
