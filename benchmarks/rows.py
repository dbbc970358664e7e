"""What is measured: each image on each network, who competes with us, and what must hold. Pure.

Of several peers the fastest counts. A promise that names a group of peers is judged against the fastest of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peers import (
    ARIA2_ONLY,
    CURL_DD,
    CURL_DIRECT,
    CURL_ONLY,
    NBDCOPY,
    ZSTD_FILE,
    ZSTD_STREAM,
    Peer,
    aria2_convert,
    converters,
    curl_convert,
    nbdkit_convert,
    stream,
    unpack,
)
from promises import Faster, Memory, NearNetwork, Promise, Ties, turns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image on one network, and its competitors."""

    network: str
    name: str
    file: str
    peers: tuple[Peer, ...]
    promises: tuple[Promise, ...] = ()
    """Besides memory, which every row promises."""
    medium: bool = False
    """Use the smaller disk: this network is slow."""

    @property
    def key(self) -> str:
        """What a person calls the row."""
        return f"{self.network}/{self.name}"

    @property
    def reference(self) -> str:
        """The raw disk that must come out."""
        return "random.raw" if self.file == "random.raw" else "disk.raw"

    @property
    def all_promises(self) -> tuple[Promise, ...]:
        """Everything to be judged."""
        return (*self.promises, Memory())

    @property
    def turns(self) -> int:
        """How often the competitors take turns."""
        return turns_of(self.promises)


def _loopback(name: str, file: str, peers: tuple[Peer, ...], must: float | None = None) -> Row:
    """Return a row of the first promise: against a download, then a conversion."""
    return Row(network="loopback", name=name, file=file, peers=peers, promises=(Faster(times=must),) if must else ())


LOOPBACK = (
    _loopback("raw", "disk.raw", (*curl_convert("raw"), replace(CURL_ONLY, label="curl only (not sparse)", aside=True)), 1.5),
    _loopback("qcow2", "disk.qcow2", curl_convert("qcow2"), 1.5),
    _loopback("qcow2-zlib", "disk-zlib.qcow2", curl_convert("qcow2"), 1.1),
    _loopback("qcow2-zstd", "disk-zstd.qcow2", curl_convert("qcow2"), 1.1),
    _loopback("raw.gz", "disk.raw.gz", (unpack("pigz"), unpack("igzip"), stream("igzip", aside=True)), 1.5),
    _loopback("raw.zst", "disk.raw.zst", (ZSTD_FILE, unpack("zstd -q"), replace(ZSTD_STREAM, aside=True)), 1.5),
    _loopback("raw.xz", "disk.raw.xz", (unpack("xz -T2"),)),
    _loopback("vmdk", "disk.vmdk", curl_convert("vmdk")),
    _loopback("vmdk-stream", "disk-stream.vmdk", curl_convert("vmdk")),
    _loopback("vhdx", "disk.vhdx", curl_convert("vhdx")),
    _loopback("vdi", "disk.vdi", curl_convert("vdi")),
    _loopback("vhd", "disk.vhd", curl_convert("vpc")),
)


def _lan(name: str, file: str, peers: tuple[Peer, ...], *promises: Promise) -> Row:
    return Row(network="lan", name=name, file=file, peers=peers, promises=promises)


LAN = (
    _lan(
        "raw",
        "disk.raw",
        (NBDCOPY, *curl_convert("raw"), *nbdkit_convert("raw"), CURL_DD),
        Faster(times=1.3, than="nbdcopy"),
    ),
    _lan(
        "random",
        "random.raw",
        (CURL_ONLY, CURL_DIRECT, ARIA2_ONLY, NBDCOPY, *nbdkit_convert("raw")[1:]),
        Faster(times=1.0),
    ),
    _lan("qcow2", "disk.qcow2", converters("qcow2", compressed=False), Ties()),
    _lan("qcow2-used", "disk-used.qcow2", converters("qcow2", compressed=False)),
    _lan("qcow2-zlib", "disk-zlib.qcow2", converters("qcow2", compressed=True), Faster(times=2.5)),
    _lan("qcow2-zstd", "disk-zstd.qcow2", converters("qcow2", compressed=True), Faster(times=1.8)),
    _lan("vhdx", "disk.vhdx", converters("vhdx", compressed=False), Faster(times=1.8)),
    _lan("vmdk-stream", "disk-stream.vmdk", converters("vmdk", compressed=True), Faster(times=2.5)),
    _lan(
        "raw.gz",
        "disk.raw.gz",
        (unpack("igzip"), stream("igzip"), unpack("pigz"), stream("pigz")),
        Faster(times=1.0, than="igzip | dd"),
        Faster(times=2.2, than="pigz | dd"),
    ),
    _lan(
        "raw.zst",
        "disk.raw.zst",
        (ZSTD_FILE, ZSTD_STREAM, unpack("zstd -q"), stream("zstd -q")),
        Faster(times=1.2, than="zstd --sparse"),
        Faster(times=2.0, than="zstd | dd"),
    ),
    _lan("raw.xz", "disk.raw.xz", (unpack("xz -T2"), stream("xz -T2")), Ties()),
)


def _wan(name: str, file: str, peers: tuple[Peer, ...], *promises: Promise) -> Row:
    return Row(network="wan", name=name, file=file, peers=peers, promises=promises, medium=True)


WAN = (
    _wan(
        "qcow2-zlib",
        "disk-zlib.qcow2",
        (curl_convert("qcow2")[0], aria2_convert("qcow2")),
        Faster(times=4.0, than="curl + convert"),
        Faster(times=1.3, than="aria2c + convert"),
    ),
    _wan("qcow2", "disk.qcow2", (curl_convert("qcow2")[1], aria2_convert("qcow2", " -t none"))),
    _wan("raw", "disk.raw", (replace(ARIA2_ONLY, label="aria2c -x8 only (not sparse)"), aria2_convert("raw")), Ties()),
)


def _gigabit(name: str, file: str, driver: str, *, medium: bool = False) -> Row:
    """Return a row that the network decides: who saves before converting pays for both."""
    peers = (curl_convert(driver)[1], nbdkit_convert(driver)[1], *((NBDCOPY,) if driver == "raw" else ()))
    return Row(network="gigabit", name=name, file=file, peers=peers, promises=(NearNetwork(),), medium=medium)


GIGABIT = (
    _gigabit("raw", "disk.raw", "raw", medium=True),
    _gigabit("qcow2", "disk.qcow2", "qcow2"),
)

ROWS = (*LOOPBACK, *LAN, *WAN, *GIGABIT)


def chosen(networks: Sequence[str], names: str) -> list[Row]:
    """Return rows of some networks: "promised", "all", or a list with commas of names and keys. Raises KeyError."""
    rows = [row for row in ROWS if row.network in networks]
    if names == "all":
        return rows
    if names == "promised":
        return [row for row in rows if row.promises or row.network != "loopback"]
    wanted = names.split(",")
    if unknown := [name for name in wanted if not any(name in (row.name, row.key) for row in rows)]:
        raise KeyError(", ".join(unknown))
    return [row for row in rows if row.name in wanted or row.key in wanted]
