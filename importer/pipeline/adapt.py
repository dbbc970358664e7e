"""How many connections are worth having, by what they bring. Pure: time is an argument.

A real network is given eight at once, as there each connection is limited by latency or by the server; a near one begins
with four, and gets more only as long as more of them bring measurably more. The number that a user gave is never exceeded.
"""

from dataclasses import dataclass, field

NEAR = 0.005
"""Seconds to the first byte up to which a server is near."""
FEW = 4
MANY = 8
STEP = 2
WORTH = 1.10
"""More connections are kept if they bring at least this factor."""
SHORTEST = 0.2
LONGEST = 2.0
"""Bounds of the seconds over which a rate is measured."""
REMEMBERED = 4
"""Rates to compare a trial with, the best of them."""
STARVED = 0.15
"""Share of their time that connections may wait for room before their rate tells more of the consumer than of the network."""
REST = 5.0
"""Seconds until more connections are tried again after they brought nothing; doubled each time."""


@dataclass(slots=True, kw_only=True)
class Adaptation:
    """Decides from arrivals and waits; one for all connections of a fetch."""

    most: int
    latency: float | None
    """Seconds from a request to the first byte of its answer, at best; None if unknown."""
    count: int = field(init=False)
    """How many connections to use now."""
    _seconds: float = field(init=False)
    _begun: float | None = None
    _bytes: int = 0
    _waited: float = 0.0
    _before: tuple[int, float] | None = None
    """Count and rate before the connections on trial; None if there are none on trial."""
    _rates: list[float] = field(default_factory=list)
    """The latest rates with this count: a burst of one of them is no gain."""
    _rest: float = REST
    _tried: float = float("-inf")
    """When more may be tried again."""
    _history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Choose the first count."""
        far = self.latency is not None and self.latency > NEAR
        self.count = min(self.most, MANY if far else FEW)
        self._seconds = min(LONGEST, max(SHORTEST, 4 * (self.latency or 0.0)))
        told = "unknown" if self.latency is None else f"{self.latency * 1000:.3g} ms"
        limit = ", the most allowed" if self.count == self.most else ""
        self._history.append(f"begun with {self.count}{limit}, as the time to the first byte is {told}")

    @property
    def reason(self) -> str:
        """How the count came about, in words for the receipt."""
        return "; ".join(self._history[:1] + self._history[1:][-6:])

    def arrived(self, now: float, size: int) -> bool:
        """Note `size` bytes; True if the count is another now."""
        if self._begun is None:
            self._begin(now)
        assert self._begun is not None
        if now >= self._begun:
            self._bytes += size
            if now - self._begun >= self._seconds:
                return self._judge(now, now - self._begun)
        return False

    def waited(self, seconds: float) -> None:
        """Note that a connection had nothing to do for so long: there was no room for what it would bring."""
        self._waited += seconds

    def disturbed(self, now: float, most: int) -> None:
        """Note an attempt that broke: what was measured says nothing. `most`: what the server puts up with."""
        if most < self.most:
            self._history.append(f"at most {most} from then on, as the server is crowded")
        self.most = most
        self.count = min(self.count, most)
        self._before = None
        self._rates = []
        self._begin(now + self._seconds)

    def _begin(self, at: float) -> None:
        self._begun, self._bytes, self._waited = at, 0, 0.0

    def _judge(self, now: float, seconds: float) -> bool:
        rate, starved = self._bytes / seconds, self._waited > STARVED * seconds * self.count
        count = self.count
        if self._before is not None:
            self._judge_trial(now, rate)
        else:
            self._rates = [*self._rates[1 - REMEMBERED :], rate]
            if not starved and now >= self._tried and self.count < self.most and len(self._rates) > 1:
                self._before = (self.count, max(self._rates))
                self.count = min(self.most, self.count + STEP)
        changed = self.count != count
        # New connections need a moment before they show what they bring.
        self._begin(now + self._seconds / 2 if changed else now)
        return changed

    def _judge_trial(self, now: float, rate: float) -> None:
        assert self._before is not None
        count, before = self._before
        self._before = None
        gain = f"{self.count - count} more brought {(rate / before - 1) * 100:+.0f} %" if before else "more brought bytes"
        if rate >= before * WORTH:
            self._history.append(f"{gain}: {self.count} kept")
            self._rates = [rate]
            return
        self._history.append(f"{gain}: back to {count}")
        self.count = count
        self._tried = now + self._rest
        self._rest *= 2
