"""Every way an import can fail, as data: code, exit status, whether to try again, what to do.

The exit statuses are those of sysexits.h, so that scripts and Kubernetes can tell
"the image is bad" from "try again later" without reading text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


class Exit(IntEnum):
    """Exit statuses (sysexits.h)."""

    OK = 0
    USAGE = 64
    DATA = 65
    UNAVAILABLE = 69
    SOFTWARE = 70
    CANTCREAT = 73
    IOERR = 74
    TEMPFAIL = 75
    NOPERM = 77


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalogue: what a code means and what a person can do about it."""

    exit: Exit
    meaning: str
    hint: str

    @property
    def retryable(self) -> bool:
        """True when the same command may succeed later without any change."""
        return self.exit is Exit.TEMPFAIL


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        # -- 64: the command itself
        "usage": Entry(Exit.USAGE, "the command line cannot be acted on", "see `slipstream import --help`"),
        "secret-in-argv": Entry(
            Exit.USAGE,
            "a secret was given where every user of the machine can read it",
            "put it in a file readable by you alone and use --header-file or --auth-file",
        ),
        # -- 65: the image
        "not-a-disk": Entry(
            Exit.DATA,
            "the source is a known kind of file that is no disk image",
            "check the URL; if these bytes really are a raw disk, say --format raw",
        ),
        "not-an-archive": Entry(
            Exit.DATA, "the source is no tar archive", "leave --content archive out if it is a disk image; else check the URL"
        ),
        "empty": Entry(Exit.DATA, "the source holds no bytes", "check the URL"),
        "unsafe": Entry(
            Exit.DATA,
            "the image asks for something outside itself or defies its own format",
            "convert it to a self-contained image on a machine you trust: qemu-img convert -O qcow2",
        ),
        "unsupported": Entry(
            Exit.DATA,
            "the image uses a feature this importer does not read",
            "convert it with qemu-img convert -O qcow2 and import the result",
        ),
        "corrupt": Entry(Exit.DATA, "the image contradicts itself", "fetch or build the image anew"),
        "truncated": Entry(
            Exit.DATA, "the image ends before its data does", "upload the image anew: bytes are missing at its end"
        ),
        "bomb": Entry(
            Exit.DATA,
            "the image expands far beyond what it can honestly hold",
            "do not trust this image; if it is yours, convert it to raw and import that",
        ),
        "too-large": Entry(Exit.DATA, "the disk is larger than the limit", "raise --max-size if you trust the image"),
        "shrink": Entry(Exit.DATA, "--size is smaller than the disk in the image", "leave --size out or make it larger"),
        "decoder-memory": Entry(
            Exit.DATA,
            "decoding needs more memory than allowed",
            "raise --decoder-memory, or compress the image with a smaller window",
        ),
        "checksum-mismatch": Entry(
            Exit.DATA, "the bytes are not those that were promised", "check the checksum's source; then fetch again"
        ),
        "checksum-missing": Entry(
            Exit.DATA, "the checksum file does not name this image", "check --checksum-url, or give --checksum"
        ),
        "source-changed": Entry(
            Exit.DATA,
            "the source changed while it was read",
            "start again once the publisher has finished; pin the image with --checksum",
        ),
        "disk-missing": Entry(
            Exit.DATA, "the container image holds no disk", "put the disk into the image as its only file below /disk/"
        ),
        "several-disks": Entry(
            Exit.DATA, "the container image holds more than one disk", "build an image with one file below /disk/"
        ),
        "wrong-platform": Entry(
            Exit.DATA, "the container image is not made for this platform", "choose one that there is with --platform"
        ),
        # -- 69: the source
        "unreachable": Entry(Exit.UNAVAILABLE, "no connection to the source", "check host, port, proxy and firewall"),
        "not-found": Entry(Exit.UNAVAILABLE, "the source does not exist", "check the URL"),
        "http-status": Entry(Exit.UNAVAILABLE, "the server refused the request", "open the URL with curl -v and compare"),
        "archived": Entry(
            Exit.UNAVAILABLE, "the object lies in an archive and cannot be read", "restore it first, then import it"
        ),
        "protocol": Entry(Exit.UNAVAILABLE, "the server broke the protocol", "try another mirror"),
        "redirects": Entry(Exit.UNAVAILABLE, "the redirects do not end or lead nowhere allowed", "use the final URL itself"),
        "tls": Entry(
            Exit.UNAVAILABLE,
            "the server's certificate is not trusted",
            "give the authority's certificate with --ca-file; --insecure only on a network you trust",
        ),
        # -- 70: ourselves
        "internal": Entry(Exit.SOFTWARE, "a fault of Slipstream", "please report it with the output of --json"),
        "tool-missing": Entry(Exit.SOFTWARE, "a program this import needs is not installed", "apt-get install qemu-utils"),
        "tool-limit": Entry(
            Exit.SOFTWARE,
            "a tool hit the memory limit set for it",
            "this says nothing about the image; report it with the receipt",
        ),
        "tool-failed": Entry(
            Exit.SOFTWARE, "a tool failed in a way that is not the image's fault", "read the evidence; report it if it persists"
        ),
        # -- 73: the target
        "target-exists": Entry(
            Exit.CANTCREAT, "the target exists, or the device holds something", "choose another, or replace it with --force"
        ),
        "target-directory": Entry(Exit.CANTCREAT, "the target's directory cannot be used", "create it or choose another"),
        "target-unsupported": Entry(
            Exit.CANTCREAT, "the target cannot be made into a disk", "give a path for a new file, a directory or a block device"
        ),
        "no-space": Entry(Exit.CANTCREAT, "the disk does not fit", "free space, choose another target, or lower --reserve"),
        # -- 74, 75, 77
        "io": Entry(Exit.IOERR, "reading or writing failed on this machine", "check the kernel log and the file system"),
        "busy": Entry(Exit.TEMPFAIL, "something else uses this target", "wait for it, or choose another target"),
        "stalled": Entry(Exit.TEMPFAIL, "no byte arrived for too long", "try again later, or another mirror"),
        "overloaded": Entry(Exit.TEMPFAIL, "the server asks to come back later", "try again later with fewer --connections"),
        "interrupted": Entry(Exit.TEMPFAIL, "stopped by a signal", "run the same command again"),
        "denied": Entry(Exit.NOPERM, "the server denies access", "check the credentials given with --auth-file or --header-file"),
        "credentials": Entry(
            Exit.NOPERM,
            "the credentials for the source cannot be found or used",
            "try the same source with that service's own command, such as aws s3 ls",
        ),
        "permission": Entry(Exit.NOPERM, "this user may not do that here", "check owner and mode of the path in the evidence"),
        "address-refused": Entry(
            Exit.NOPERM,
            "the address is one an image source must not lead to",
            "if this server is yours, allow it with --allow-address",
        ),
    }
)


class Failure(Exception):
    """An import that ended, with everything a person or a controller needs to act on it.

    `code` is a key of CATALOGUE, `cause` one sentence, `evidence` the facts behind it (already
    redacted: no secret may enter it), `hint` the catalogue's advice unless a better one is known.
    """

    def __init__(self, code: str, cause: str, *, hint: str | None = None, **evidence: object) -> None:
        """Take a code of the catalogue (KeyError otherwise), a cause and its evidence."""
        self.entry = CATALOGUE[code]
        self.code = code
        self.cause = cause
        self.hint = hint or self.entry.hint
        self.evidence: dict[str, str] = {key: str(value) for key, value in evidence.items()}
        super().__init__(cause)

    @property
    def exit(self) -> Exit:
        """The exit status of a command that ends with this failure."""
        return self.entry.exit

    def render(self) -> str:
        """Return the lines for a terminal: code and cause, evidence, what to do."""
        facts = "".join(f"\n  {key}: {value}" for key, value in self.evidence.items())
        return f"error[{self.code}]: {self.cause}{facts}\n  what to do: {self.hint}"

    def as_json(self) -> dict[str, object]:
        """Return the same as a JSON object."""
        return {
            "code": self.code,
            "exit": int(self.exit),
            "retryable": self.entry.retryable,
            "cause": self.cause,
            "evidence": self.evidence,
            "hint": self.hint,
        }
