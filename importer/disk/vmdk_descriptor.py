"""The descriptor embedded in a sparse VMDK: which files it names. Pure.

Readers differ in how they read this text, so whatever any of them could take for a parent is refused, wherever
in the bytes it stands and however it is written.
"""

import re

from importer.disk.image import SECTOR
from importer.disk.refusals import corrupt, unsafe, unsupported

FIXED_AT = 0x200
FIXED_SIZE = 20 * SECTOR
"""Where and how far qemu looks for parent and CIDs, whatever the header says."""
MOST_SECTORS = 127
"""The descriptor is within the first 64 KiB."""

_PARENT = re.compile(rb"parentfilenamehint", re.I)
_PARENT_ID = re.compile(rb"parentcid", re.I)
_NO_PARENT = re.compile(rb"[ \t]*=[ \t]*\"?ffffffff\b", re.I)
_EXTENT = re.compile(r"[ \t]*(RW|RDONLY|NOACCESS)[ \t]+(\d+)[ \t]+(\w+)", re.I)
_TYPE = re.compile(r"^[ \t]*createType[ \t]*=[ \t]*\"?([^\"\r\n]*)", re.I | re.M)
_KINDS = {"monolithicsparse": "monolithicSparse", "streamoptimized": "streamOptimized"}


def read_descriptor(head: bytes, offset: int, size: int) -> str:
    """Judge the descriptor in the first bytes of an image, `offset` and `size` in sectors; return its createType.

    Raises Failure: "unsafe" for parents and for data in other files, "unsupported" for other types, "corrupt".
    """
    declared = head[offset * SECTOR : (offset + size) * SECTOR] if offset <= MOST_SECTORS and size <= MOST_SECTORS else b""
    for region in (head[FIXED_AT : FIXED_AT + FIXED_SIZE], declared):
        if hint := _PARENT.search(region):
            unsafe("the image names a parent", "parentFileNameHint", _shown(region[hint.end() : hint.end() + 80]))
        for found in _PARENT_ID.finditer(region):
            if not _NO_PARENT.match(region, found.end()):
                unsafe("the image has a parent", "parentCID", _shown(region[found.end() : found.end() + 20]))
    text = declared.partition(b"\0")[0]
    if offset == 0 or size == 0 or (not text and offset * SECTOR == FIXED_AT and size <= MOST_SECTORS):
        unsupported("this is one part of a disk in several files: it has no descriptor", "descriptorOffset", offset)
    if offset * SECTOR != FIXED_AT or size > MOST_SECTORS:
        unsafe("the descriptor is not where readers look for it", "descriptorOffset, descriptorSize", f"{offset}, {size}")
    if not _PARENT_ID.search(text):
        corrupt("the descriptor does not say that there is no parent", "parentCID", "missing")
    return _read_text(text.decode("latin-1"))


def _read_text(text: str) -> str:
    extents = [match for line in re.split(r"[\r\n]+", text) if (match := _EXTENT.match(line))]
    if len(extents) != 1:
        unsafe("a sparse image in one file has exactly one extent", "extents", len(extents))
    access, _, kind = extents[0].groups()
    if kind.upper() != "SPARSE" or access.upper() == "NOACCESS":
        unsafe("the disk's data lies in another file", "extent", f"{access} {kind}")
    types = _TYPE.findall(text)
    if len(types) != 1 or types[0].strip().lower() not in _KINDS:
        unsupported("neither monolithicSparse nor streamOptimized", "createType", ", ".join(types) or "missing")
    return _KINDS[types[0].strip().lower()]


def _shown(value: bytes) -> str:
    line = re.split(rb"[\0\r\n]", value, maxsplit=1)[0]
    return "".join(letter if letter.isprintable() else "?" for letter in line.decode("latin-1")).strip(' ="')
