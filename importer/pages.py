"""Receipts, inspections, failures and moments as text for people. Pure: values in, lines out.

Whatever comes from a server or an image passes `plain`, so that no escape sequence of theirs
reaches a terminal.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from importer.api.failure import Failure
from importer.api.report import Inspection, Progress, Receipt
from machinery.values.quantity import show_size

_SPAN = 10.0
"""Seconds over which a rate is measured."""
_MOST_NOTES = 4


def plain(text: str) -> str:
    """Return text with every control and formatting character spelled out: safe to print anywhere."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in text)


def failure_lines(failure: Failure) -> str:
    """Return `Failure.render()` with its cause and evidence made plain."""
    evidence = {name: plain(value) for name, value in failure.evidence.items()}
    shown = Failure(failure.code, plain(failure.cause), hint=failure.hint)
    shown.evidence = evidence
    return shown.render()


def show_time(seconds: float) -> str:
    """Return seconds for people: "4.2 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """Rate and time left of a running import, over the last ten seconds of moments."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, moment: Progress) -> None:
        """Take a moment into account; a phase that starts counting anew starts the measure anew."""
        if self._seen and moment.fetched < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((moment.seconds, moment.fetched))
        while len(self._seen) > 2 and self._seen[1][0] <= moment.seconds - _SPAN:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second, 0.0 where nothing moved."""
        if len(self._seen) < 2:
            return 0.0
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def left(self, moment: Progress) -> float | None:
        """Seconds until everything is fetched, None if nothing can tell."""
        rate = self.rate
        if moment.fetch_total is None or rate <= 0:
            return None
        return max(0.0, (moment.fetch_total - moment.fetched - moment.resumed) / rate)


def moment_line(moment: Progress, pace: Pace) -> str:
    """Return one line on where an import is."""
    total = moment.fetch_total
    here = moment.fetched + moment.resumed
    parts = [f"{moment.phase}: {show_size(here)}"]
    if total:
        parts[0] += f" of {show_size(total)} ({min(100, 100 * here // total)} %)"
    if pace.rate > 0:
        parts.append(f"{show_size(pace.rate)}/s")
    left = pace.left(moment)
    if left:
        parts.append(f"{show_time(left)} left")
    if moment.written:
        parts.append(f"{show_size(moment.written)} written")
    if moment.connections:
        parts.append(_count(moment.connections, "connection"))
    if moment.retries:
        parts.append(_count(moment.retries, "retry", "retries"))
    return ", ".join(parts)


def receipt_page(receipt: Receipt) -> str:
    """Return at most 20 lines on what an import did."""
    one = receipt
    share = f" ({100 * one.allocated_size // one.virtual_size} %)" if one.virtual_size else ""
    moved = (
        f"{show_size(one.bytes_fetched)} fetched, {show_size(one.bytes_decoded)} decoded, {show_size(one.bytes_written)} written"
    )
    if one.bytes_resumed:
        moved = f"{show_size(one.bytes_resumed)} kept from before, {moved}"
    spilled = f", {show_size(one.bytes_spilled)} spilled" if one.bytes_spilled else ""
    stages = [f"{stage.name} {stage.busy_seconds:.1f} + {stage.waiting_seconds:.1f}" for stage in one.stages]
    rows = [
        ("imported", one.source),
        ("to", one.target),
        ("disk", f"{show_size(one.virtual_size)} virtual, {show_size(one.allocated_size)} allocated{share}")
        if one.members is None
        else ("archive", f"{_count(one.members, 'member')}, {show_size(one.virtual_size)} of files"),
        ("format", one.format + (f" in {one.wrapper}" if one.wrapper else "")),
        ("route", one.route),
        ("bytes", f"{moved}, {show_size(one.bytes_zero)} skipped as zero{spilled}"),
        ("time", f"{show_time(one.seconds)}, limited by {one.limiting_stage}"),
        ("stages", (", ".join(stages) + "  (seconds working + waiting)") if stages else "none"),
        ("digest", ", ".join(f"{name}:{value}" for name, value in one.digests.items()) or "not asked for"),
        ("verified", ", ".join(one.verified) or "nothing was promised"),
        ("validators", _pairs(one.validators) or "none given"),
        ("network", f"{_count(one.connections, 'connection')}, {_count(one.retries, 'retry', 'retries')}"),
        ("memory", f"{show_size(one.peak_rss)} at most"),
        ("sandbox", one.sandbox),
        ("versions", _pairs(one.versions)),
    ]
    return _table(rows, one.notes)


def inspection_page(inspection: Inspection) -> str:
    """Return what is known of an image before its body is read."""
    one = inspection
    unknown = "unknown until decoded"
    rows = [
        ("source", one.source),
        ("length", unknown if one.length is None else f"{show_size(one.length)} ({one.length} bytes)"),
        ("format", one.format + (f" in {one.wrapper}" if one.wrapper else "")),
        ("disk", _disk_size(one, unknown)),
        ("compressed", {True: "yes", False: "no", None: unknown}[one.compressed]),
        *((f"image {name}", value) for name, value in one.image.items()),
        *((f"server {name}", value) for name, value in one.server.items()),
        ("fits", one.fits),
        ("read", f"{show_size(one.bytes_read)} in {_count(one.requests, 'request')}"),
    ]
    page = _table(rows, (), warnings=one.warnings)
    if not one.dangers:
        return f"{page}\nnothing found that would stop an import"
    return "\n".join([page, "an import would be refused:", *(line for danger in one.dangers for line in _danger_lines(danger))])


def _disk_size(one: Inspection, unknown: str) -> str:
    if one.virtual_size is not None:
        return f"{show_size(one.virtual_size)} ({one.virtual_size} bytes)"
    least = one.virtual_size_at_least
    return unknown if least is None else f"at least {show_size(least)} ({least} bytes); the whole is {unknown}"


def _danger_lines(danger: Mapping[str, object]) -> Iterable[str]:
    yield f"  error[{plain(str(danger.get('code')))}]: {plain(str(danger.get('cause')))}"
    evidence = danger.get("evidence")
    if isinstance(evidence, Mapping):
        yield from (f"    {plain(str(name))}: {plain(str(value))}" for name, value in evidence.items())
    yield f"    what to do: {plain(str(danger.get('hint')))}"


def _table(rows: Iterable[tuple[str, str]], notes: tuple[str, ...], *, warnings: tuple[str, ...] = ()) -> str:
    lines = [*rows, *(("note", text) for text in notes[:_MOST_NOTES]), *(("warning", text) for text in warnings)]
    if len(notes) > _MOST_NOTES:
        lines.append(("note", f"and {len(notes) - _MOST_NOTES} more in the receipt as JSON"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{plain(name):<{width}}  {plain(text)}".rstrip() for name, text in lines)


def _pairs(known: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in known.items())


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
