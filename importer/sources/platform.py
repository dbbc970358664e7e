"""For which machine an image is made, and the choice among several. Pure."""

import re
from dataclasses import dataclass

from importer.api.failure import Failure

_MACHINES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_IMPLIED = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
"""The variant that is meant where none is named."""
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """os/architecture[/variant], in Go's words."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """Spell it as people do."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def suits(self, wanted: "Platform") -> bool:
        """Tell whether an image for this one is one for the wanted one; without a variant any will do."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return not wanted.variant or self._variant == wanted._variant

    @property
    def _variant(self) -> str:
        return self.variant or _IMPLIED.get(self.architecture, "")

    @property
    def plain(self) -> bool:
        """True if the variant is the one that is meant where none is named."""
        return self._variant == _IMPLIED.get(self.architecture, "")


def parse(text: str) -> Platform:
    """Return the platform that os/architecture[/variant] spells. Raises ValueError."""
    if not re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?", text, re.ASCII):
        raise ValueError(f"{text!r} is no platform: write linux/amd64 or linux/arm/v7")
    system, architecture, *variant = text.split("/")
    return Platform(os=system, architecture=architecture, variant=variant[0] if variant else "")


def of_machine(machine: str) -> Platform:
    """Return the platform of a Linux host by what uname calls its machine; one that is not known keeps its name."""
    return parse(f"linux/{_MACHINES.get(machine, re.sub('[^a-z0-9_]', '', machine.lower()) or 'unknown')}")


def choose(there: tuple[Platform | None, ...], wanted: Platform) -> int:
    """Return the place of what suits the wanted platform: the plain variant first, else the first one named.

    A single one that names no platform is taken. Raises Failure("wrong-platform") with those that there are.
    """
    fitting = [place for place, one in enumerate(there) if one is not None and one.suits(wanted)]
    if fitting:
        return next((place for place in fitting if (found := there[place]) is not None and found.plain), fitting[0])
    if there == (None,):
        return 0
    # "unknown" is how attestations are kept out of everybody's choice.
    names = sorted({str(one) for one in there if one is not None and one.os != "unknown"})
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    raise Failure("wrong-platform", "the image is not made for the wanted platform", wanted=wanted, there_are=shown or "none")
