"""How a tool that reads untrusted bytes is confined: by unshare, setpriv and prlimit of util-linux.

Those tools replace themselves by the next (exec), so a confined child keeps its process id, and no code of
ours runs between fork and exec. What this machine allows is found out once, with `true`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from machinery.process import child

NOBODY = 65534
ADDRESS_SPACE = 4 << 30
OPEN_FILES = 256
PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a child is kept from. Everything False and None: an ordinary child."""

    network: bool = False
    """An empty network namespace: descriptors it was given still work, nothing else does."""
    user_namespace: bool = False
    """The network namespace comes with a user namespace, which needs no root."""
    user: bool = False
    """User and group nobody, without any capability."""
    privileges: bool = False
    """It can gain none (no_new_privs), and it dies when the thread that started it does."""
    address_space: int | None = None
    """Bytes (RLIMIT_AS); comes with no core dump and few open files."""

    def describe(self) -> str:
        """Say it in words, for receipts."""
        words = ["empty network namespace" if self.network else "network not confined"]
        if self.user:
            words.append("user nobody")
        if self.privileges:
            words.append("no new privileges")
        if self.address_space:
            words.append(f"address space {self.address_space / (1 << 30):g} GiB")
        return ", ".join(words)


def wrap(argv: Sequence[str], confinement: Confinement) -> list[str]:
    """Return the argv that runs `argv` confined."""
    words: list[str] = []
    if confinement.network:
        words += ["unshare", *(["--user"] if confinement.user_namespace else []), "--net", "--"]
    if confinement.privileges:
        words += ["setpriv"]
        if confinement.user:
            words += [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        words += ["--no-new-privs", "--pdeathsig=KILL", "--"]
    if confinement.address_space:
        words += ["prlimit", f"--as={confinement.address_space}", "--core=0", f"--nofile={OPEN_FILES}", "--"]
    return [*words, *argv]


def ladder(*, root: bool) -> tuple[Confinement, ...]:
    """Return what to try, the strictest first, the last of which always works."""
    space = ADDRESS_SPACE
    plain = (
        Confinement(privileges=True, address_space=space),
        Confinement(address_space=space),
        Confinement(),
    )
    if not root:
        return (Confinement(network=True, user_namespace=True, privileges=True, address_space=space), *plain)
    return (
        Confinement(network=True, user=True, privileges=True, address_space=space),
        Confinement(user=True, privileges=True, address_space=space),
        Confinement(network=True, privileges=True, address_space=space),
        *plain,
    )


_found: tuple[Confinement, tuple[str, ...]] | None = None


async def available() -> tuple[Confinement, tuple[str, ...]]:
    """Return the strictest confinement that works here, and a note for each thing denied. Probes once a process."""
    global _found
    if _found is None:
        _found = await probe(ladder(root=os.geteuid() == 0))
    return _found


async def probe(rungs: Sequence[Confinement]) -> tuple[Confinement, tuple[str, ...]]:
    """Return the first rung on which `true` runs, and notes about the first rung if it is another."""
    denial = ""
    for rung in rungs[:-1]:
        error = await _refusal(wrap(["true"], rung))
        if error is None:
            return rung, denied(rungs[0], rung, denial)
        denial = denial or error
    return rungs[-1], denied(rungs[0], rungs[-1], denial)


def denied(wanted: Confinement, got: Confinement, why: str) -> tuple[str, ...]:
    """Say what of `wanted` is missing in `got`; `why` is what the tool said."""
    return tuple(
        f"{what} denied: {why}"
        for what, missing in (
            ("network namespace", wanted.network and not got.network),
            ("user nobody", wanted.user and not got.user),
            ("no new privileges", wanted.privileges and not got.privileges),
            ("resource limits", wanted.address_space and not got.address_space),
        )
        if missing
    )


async def _refusal(argv: Sequence[str]) -> str | None:
    """Run a harmless command; return why it did not work, None if it did."""
    try:
        ended = await child.run(argv, seconds=PROBE_SECONDS)
    except TimeoutError:
        return f"no answer within {PROBE_SECONDS:g} s"
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    return None if ended.returncode == 0 else ended.last_line
