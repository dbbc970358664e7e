"""One file that must be refused, and the code of the refusal."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class HostileFile:
    """`build` returns the whole content; `code` is a key of importer.api.failure.CATALOGUE."""

    name: str
    code: str
    build: Callable[[], bytes]
