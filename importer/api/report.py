"""What an import tells while it runs and when it is over."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a running import. Bytes; totals are None where nothing can tell them yet."""

    phase: str
    """probing, judging, transferring, spilling, converting, syncing, publishing."""
    fetched: int = 0
    resumed: int = 0
    """Bytes that an earlier import brought and that are not fetched again."""
    fetch_total: int | None = None
    decoded: int = 0
    written: int = 0
    zeroes: int = 0
    seconds: float = 0.0
    """Since the import began."""
    connections: int = 0
    retries: int = 0


class Reporter(Protocol):
    """Whom the pipeline tells. Calls are cheap, frequent and made on the event loop."""

    def progress(self, moment: Progress) -> None:
        """Take note of where the import is; called at every change of phase and a few times a second."""
        ...

    def note(self, text: str) -> None:
        """Take note of something a person should know, such as an announced spill."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage cost: seconds at work (over all its threads) and seconds waiting for its neighbours."""

    name: str
    busy_seconds: float
    waiting_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an import did. Every successful import makes one; nothing in it is secret."""

    source: str
    validators: Mapping[str, str]
    digests: Mapping[str, str]
    """Algorithm to hex, over the bytes as served."""
    verified: tuple[str, ...]
    """Which promises held: "sha256 of --checksum"."""
    target: str
    format: str
    wrapper: str | None
    route: str
    """The path through the pipeline and why: "qemu-img over NBD, window of 48 MiB"."""
    virtual_size: int
    allocated_size: int
    source_length: int | None
    bytes_fetched: int
    bytes_resumed: int = 0
    """Bytes of the source that an interrupted import had brought, and that were not fetched again."""
    bytes_decoded: int
    bytes_written: int
    bytes_zero: int
    bytes_spilled: int
    seconds: float
    stages: tuple[Stage, ...]
    limiting_stage: str
    retries: int
    connections: int
    connections_reason: str = ""
    """How their number came about; "" where one connection reads in order, or none does."""
    peak_rss: int
    """Bytes, of this process."""
    sandbox: str
    """What confined qemu-img, or "no tool was run"."""
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    members: int | None = None
    """Of an archive that was extracted; its sizes are then those of its files together."""

    def as_json(self) -> dict[str, object]:
        """Return a JSON object with every field."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Receipt":
        """Return what `as_json` was made of. Raises KeyError or TypeError for anything else."""
        stages = tuple(Stage(**stage) for stage in value["stages"])
        return cls(**{**value, "stages": stages, "verified": tuple(value["verified"]), "notes": tuple(value["notes"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What can be said before the body is read. "unknown until decoded" marks what cannot."""

    source: str
    length: int | None
    format: str
    wrapper: str | None
    virtual_size: int | None
    """None where only the decoded stream will tell."""
    compressed: bool | None
    server: Mapping[str, str]
    """ranges, validators, length, content-type and what else the first answer told."""
    image: Mapping[str, str]
    """Facts of the format: version, cluster size, sub-format."""
    fits: str
    """"yes", "no: …", "unknown until decoded", or "not asked" without --for."""
    dangers: tuple[Mapping[str, object], ...]
    """Failures (Failure.as_json) that an import would end with."""
    warnings: tuple[str, ...] = field(default=())
    bytes_read: int = 0
    requests: int = 0
    """Redirects and repeated ones included."""
    virtual_size_at_least: int | None = None
    """What the first frame of a stream tells, where `virtual_size` is not known."""

    def as_json(self) -> dict[str, object]:
        """Return a JSON object with every field."""
        return asdict(self)
