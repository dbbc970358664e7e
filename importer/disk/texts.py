"""Texts that a server may send in place of a disk: pages, errors, pointers, descriptors. Pure."""

import re

SAMPLE = 4096
"""Bytes looked at."""
_CONTROL = re.compile("[\0-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_BEGINNINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<(!doctype\s+html|html|head|body|title)\b", re.I), "an HTML page"),
    (re.compile(r"<Error\b.{0,200}<Code>", re.S), "an error message of an object store"),
    (re.compile(r"<(\w+:)?Envelope\b"), "an OVF descriptor"),
    (re.compile(r"<(\?xml|!--|!doctype|[a-z][\w.:-]*[\s/>])", re.I), "an XML document"),
    (re.compile(r'\{\s*("|\}|$)|\[\s*([\[{"\]\d-]|true\b|false\b|null\b|$)'), "a JSON document"),
    (re.compile(r"version https://git-lfs|version https://hawser"), "a git LFS pointer"),
    (re.compile(r"#!\s*/"), "a script"),
    (re.compile(r"-----BEGIN [A-Z]"), "a PEM or PGP text"),
    (re.compile(r"#\s*Disk\s+DescriptorFile", re.I), "a bare VMDK descriptor (its data is in other files)"),
    (re.compile(r"(#[^\n]*\n|\s)*version\s*=\s*\d", re.I), "a bare VMDK descriptor (its data is in other files)"),
)


def text_label(head: bytes, length: int | None) -> str | None:
    """Return what known text an object begins as ("an HTML page"), None if it is none.

    Only a head that is text throughout can be one: a disk has binary bytes in its first 4096. An object of
    less than a sector that is all text is "a short text", such as the body of an error that came with status 200.
    """
    text = _as_text(head[:SAMPLE])
    if text is None:
        return None
    text = text.lstrip()
    body = _after_prolog(text)
    for beginning, label in _BEGINNINGS:
        if beginning.match(text) or beginning.match(body):
            return label
    return "a short text" if length is not None and length < 512 else None


def _after_prolog(text: str) -> str:
    """Return what follows an XML declaration and comments. By hand: a pattern for this backtracks without end."""
    for opening, closing in (("<?xml", "?>"), *[("<!--", "-->")] * 8):
        if text.startswith(opening) and closing in text:
            text = text[text.index(closing) + len(closing) :].lstrip()
    return text


def _as_text(sample: bytes) -> str | None:
    encoding = "utf-16" if sample[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    for cut in range(4):  # the sample may end within a character
        try:
            text = sample[: len(sample) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if _CONTROL.search(text) else text
    return None
