"""What is measured: each image, who competes with us on it, and the ratio that must hold.

A peer's script gets {url}, {tmp} (where curl puts the download) and {out} (the disk). Of several
peers the fastest counts. Asides are other ways to do it: printed, never part of the ratio.
"""

from dataclasses import dataclass, field

CURL = "curl -sSf -o {tmp} {url}"
SYNC = "sync {out}"
DD = "dd of={out} bs=1M iflag=fullblock conv=sparse status=none"


def convert(driver: str, *flags: str) -> str:
    """Return curl to a file, qemu-img convert with its fastest flags, fsync."""
    return " && ".join([CURL, " ".join(["qemu-img convert -m 16 -W", *flags, f"-f {driver} -O raw {{tmp}} {{out}}"]), SYNC])


def converts(driver: str) -> dict[str, str]:
    """Return the two cache modes of convert: which is faster depends on image and disk."""
    return {
        "curl + qemu-img convert": convert(driver),
        "curl + qemu-img convert -t none": convert(driver, "-t none"),
    }


def unpack(tool: str) -> str:
    """Return curl to a file, a decoder, a sparse dd, fsync."""
    return f"{CURL} && {tool} -dc {{tmp}} | {DD} && {SYNC}"


def stream(tool: str) -> str:
    """Return the same without the file in between."""
    return f"curl -sSf {{url}} | {tool} -dc | {DD} && {SYNC}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image and its competitors."""

    name: str
    file: str
    peers: dict[str, str]
    must: float | None = None
    """Times faster we must be than the fastest peer; None: no promise."""
    asides: dict[str, str] = field(default_factory=dict)


ROWS = (
    Row(
        name="raw",
        file="disk.raw",
        must=1.5,
        peers=converts("raw"),
        asides={"curl only (not sparse)": "curl -sSf -o {out} {url} && " + SYNC},
    ),
    Row(name="qcow2", file="disk.qcow2", must=1.5, peers=converts("qcow2")),
    Row(name="qcow2-zlib", file="disk-zlib.qcow2", must=1.1, peers=converts("qcow2")),
    Row(name="qcow2-zstd", file="disk-zstd.qcow2", must=1.1, peers=converts("qcow2")),
    Row(
        name="raw.gz",
        file="disk.raw.gz",
        must=1.5,
        peers={"curl + pigz + dd": unpack("pigz"), "curl + igzip + dd": unpack("igzip")},
        asides={"curl | igzip | dd": stream("igzip")},
    ),
    Row(
        name="raw.zst",
        file="disk.raw.zst",
        must=1.5,
        peers={
            "curl + zstd --sparse": CURL + " && zstd -q -d --sparse -o {out} {tmp} && " + SYNC,
            "curl + zstd + dd": unpack("zstd -q"),
        },
        asides={"curl | zstd --sparse": "curl -sSf {url} | zstd -q -d --sparse -o {out} && " + SYNC},
    ),
    Row(name="raw.xz", file="disk.raw.xz", peers={"curl + xz -T0 + dd": unpack("xz -T0")}),
    Row(name="vmdk", file="disk.vmdk", peers=converts("vmdk")),
    Row(name="vmdk-stream", file="disk-stream.vmdk", peers=converts("vmdk")),
    Row(name="vhdx", file="disk.vhdx", peers=converts("vhdx")),
    Row(name="vdi", file="disk.vdi", peers=converts("vdi")),
    Row(name="vhd", file="disk.vhd", peers=converts("vpc")),
)


def chosen(names: str) -> list[Row]:
    """Return the rows named in a list with commas: "promised", "all", or names. Raises KeyError."""
    if names == "all":
        return list(ROWS)
    if names == "promised":
        return [row for row in ROWS if row.must]
    known = {row.name: row for row in ROWS}
    return [known[name] for name in names.split(",")]
