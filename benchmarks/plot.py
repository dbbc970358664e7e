"""The walls of a run as a picture: ours beside the fastest peer's, one pair of bars a row. Pure."""

from collections.abc import Sequence
from html import escape

from results import Entrant
from tables import Outcome

LABEL, BARS, NUMBERS = 170, 420, 330
"""Widths of the columns, in pixels."""
PAIR, BAR, TOP = 34, 13, 46
OURS, THEIRS, INK, BACK = "#1f6feb", "#b8bec6", "#24292f", "#ffffff"


def svg(outcomes: Sequence[Outcome], caption: str) -> str:
    """Return an SVG document. Bars are scaled to the longer one of their row: rows take from one second to a minute."""
    shown = [(outcome, ours) for outcome in outcomes if (ours := outcome.measured.ours) is not None]
    width, height = LABEL + BARS + NUMBERS, TOP + PAIR * len(shown) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="{BACK}"/>',
        _text(
            10, 18, "Wall seconds to the end of fsync: Slipstream (blue), the fastest peer (grey). Each row has its own scale."
        ),
        _text(10, 35, caption),
    ]
    for index, (outcome, ours) in enumerate(shown):
        lines += _pair(TOP + PAIR * index, outcome.row.key, ours, outcome.measured.best())
    return "\n".join([*lines, "</svg>"]) + "\n"


def _pair(top: int, key: str, ours: Entrant, peer: Entrant | None) -> list[str]:
    longest = max(ours.wall, peer.wall if peer else 0.0)
    lines = [_text(10, top + BAR + 4, key), _bar(top, ours.wall / longest, OURS)]
    numbers = f"{ours.wall:.2f} s"
    if peer is not None:
        lines.append(_bar(top + BAR, peer.wall / longest, THEIRS))
        lines.append(_text(LABEL + BARS + 10, top + 2 * BAR - 2, f"{peer.wall:.2f} s {peer.label}"))
        numbers += f" · {peer.wall / ours.wall:.2f} x"
    return [*lines, _text(LABEL + BARS + 10, top + BAR - 3, numbers)]


def _bar(top: int, share: float, colour: str) -> str:
    return f'<rect x="{LABEL}" y="{top}" width="{BARS * share:.1f}" height="{BAR - 1}" fill="{colour}"/>'


def _text(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(words)}</text>'
