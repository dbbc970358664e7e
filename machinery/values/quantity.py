"""Sizes in bytes and how people write them."""

import re

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes that "10Gi", "10 GiB", "1.5g" or "4096" mean. Raises ValueError on anything else."""
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size: write 4096, 10Gi or 1.5G")
    return (
        int(float(match[1]) * _UNITS[(match[2] or "").lower()])
        if "." in match[1]
        else int(match[1]) * _UNITS[(match[2] or "").lower()]
    )


def show_size(count: float) -> str:
    """Return a count of bytes for people, in binary units with one decimal: "1.4 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
