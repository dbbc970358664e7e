"""How often servers may be asked on behalf of something that must stay small, redirects and retries included."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from importer.api.failure import Failure


@dataclass(slots=True, kw_only=True)
class Allowance:
    """What was asked for so far, by everything that runs within `granted`."""

    most_requests: int
    requests: int = 0
    received: int = 0
    """Bytes of bodies."""
    spent: bool = False
    """True once a request was refused."""

    def ask(self) -> None:
        """Count a request that is about to be sent. Raises Failure("protocol") for one too many."""
        if self.requests >= self.most_requests:
            self.spent = True
            raise Failure("protocol", "it takes more requests than this command may make", most_requests=self.most_requests)
        self.requests += 1


_CURRENT: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def granted(most_requests: int) -> Iterator[Allowance]:
    """Allow so many requests to everything inside, the tasks begun there included."""
    allowance = Allowance(most_requests=most_requests)
    token = _CURRENT.set(allowance)
    try:
        yield allowance
    finally:
        _CURRENT.reset(token)


def ask() -> None:
    """Count a request where requests are counted. Raises Failure("protocol") for one too many."""
    allowance = _CURRENT.get()
    if allowance is not None:
        allowance.ask()


def took(size: int) -> None:
    """Count bytes of a body."""
    allowance = _CURRENT.get()
    if allowance is not None:
        allowance.received += size
