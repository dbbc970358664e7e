"""What a person would use instead, with the flags that suit it best. Pure.

A script gets {url}, {download} (where a download goes), {folder} (which that is in) and {out} (the disk). Walls run to the end of
its last command, which is the fsync of the disk.
"""

import re
from dataclasses import dataclass

SYNC = "sync {out}"
CURL = "curl -sSf -o {download} {url}"
ARIA2 = "aria2c -q -x8 -s8 -k1M --file-allocation=none --dir={folder} --out=download {url}"
DD = "dd of={out} bs=1M iflag=fullblock conv=sparse status=none"
CONVERT = "qemu-img convert -m 16 -W"
NBDKIT = "nbdkit -U - curl url={url} --run "
PROGRAMS = ("curl", "aria2c", "qemu-img", "nbdkit", "nbdcopy", "igzip", "pigz", "zstd", "xz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to do it."""

    label: str
    script: str
    group: str
    """What promises call it; several ways with one tool are one group."""
    aside: bool = False
    """Printed, but no rival: it leaves something else than the others, or cannot resume."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The programs that must be installed."""
        words = set(re.findall(r"[\w-]+", self.script))
        return tuple(program for program in PROGRAMS if program in words)


def then(*steps: str) -> str:
    """Return steps of which each starts after the last one's success; the fsync is the last."""
    return " && ".join([*steps, SYNC])


def curl_convert(driver: str) -> tuple[Peer, ...]:
    """Return curl to a file, then qemu-img, in both cache modes: which is faster depends on image and disk."""
    return tuple(_downloaded("curl + qemu-img convert", "curl + convert", CURL, driver, mode) for mode in ("", " -t none"))


def aria2_convert(driver: str, mode: str = "") -> Peer:
    """Return aria2c to a file over 8 connections, then qemu-img."""
    return _downloaded("aria2c -x8 + qemu-img convert", "aria2c + convert", ARIA2, driver, mode)


def _downloaded(label: str, group: str, fetch: str, driver: str, mode: str) -> Peer:
    script = then(fetch, f"{CONVERT}{mode} -f {driver} -O raw {{download}} {{out}}")
    return Peer(label=f"{label}{mode}", script=script, group=group)


def nbdkit_convert(driver: str) -> tuple[Peer, ...]:
    """Return qemu-img reading from nbdkit's curl plugin, in both cache modes."""
    return tuple(
        Peer(
            label=f"nbdkit curl + qemu-img convert{mode}",
            script=then(f"{NBDKIT}'{CONVERT}{mode} -f {driver} -O raw \"$uri\" {{out}}'"),
            group="nbdkit + convert",
        )
        for mode in ("", " -t none")
    )


def converters(driver: str, *, compressed: bool) -> tuple[Peer, ...]:
    """Return all that read an image with qemu-img, on a fast network."""
    return (*curl_convert(driver), aria2_convert(driver, "" if compressed else " -t none"), *nbdkit_convert(driver))


def unpack(tool: str) -> Peer:
    """Return curl to a file, a decoder, a sparse dd."""
    name = tool.partition(" ")[0]
    return Peer(label=f"curl + {tool} + dd", script=then(CURL, f"{tool} -dc {{download}} | {DD}"), group=f"{name} | dd")


def stream(tool: str, *, aside: bool = False) -> Peer:
    """Return the same without the file in between."""
    name = tool.partition(" ")[0]
    script = then(f"curl -sSf {{url}} | {tool} -dc | {DD}")
    return Peer(label=f"curl | {tool} | dd", script=script, group=f"{name} | dd", aside=aside)


ZSTD_FILE = Peer(
    label="curl + zstd --sparse", script=then(CURL, "zstd -q -d --sparse -o {out} {download}"), group="zstd --sparse"
)
ZSTD_STREAM = Peer(
    label="curl | zstd --sparse", script=then("curl -sSf {url} | zstd -q -d --sparse -o {out}"), group="zstd --sparse"
)
NBDCOPY = Peer(
    label="nbdkit curl + nbdcopy",  # each HTTP request costs: 2 MiB took 4.1 s where the default of 256 KiB took 7.1
    script=then(NBDKIT + "'nbdcopy --flush --request-size=2097152 --connections=2 --threads=2 \"$uri\" {out}'"),
    group="nbdcopy",
)
CURL_DD = Peer(label="curl | dd sparse", script=then("curl -sSf {url} | " + DD), group="curl | dd")
CURL_DIRECT = Peer(
    label="curl | dd direct",
    script=then("curl -sSf {url} | dd of={out} bs=1M iflag=fullblock oflag=direct status=none"),
    group="curl | dd",
)
CURL_ONLY = Peer(label="curl only", script=then("curl -sSf -o {out} {url}"), group="curl")
ARIA2_ONLY = Peer(label="aria2c -x8 only", script=then(ARIA2, "mv {download} {out}"), group="aria2c")
NOWHERE = Peer(label="curl to /dev/null", script="curl -sSf -o /dev/null {url}", group="network")
