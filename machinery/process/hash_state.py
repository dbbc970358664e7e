"""Hashes whose state can be kept and taken up again, which hashlib's cannot: libcrypto's own contexts, by ctypes.

The context of SHA-256 is 112 bytes of plain numbers. It is only taken up again by the very library that made it.
"""

import ctypes
import functools
import platform
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_SIZES = {"md5": ("MD5", 92, 16), "sha1": ("SHA1", 96, 20), "sha256": ("SHA256", 112, 32), "sha512": ("SHA512", 216, 64)}
"""Name of the functions, bytes of the context (openssl/sha.h, openssl/md5.h), bytes of the digest."""
_LENGTH_AT = {"md5": (16, 4), "sha1": (20, 4), "sha256": (32, 4), "sha512": (64, 8)}
"""Where in the context the count of bits lies, and how wide each of its two words is: low word first."""


@dataclass(frozen=True, slots=True)
class _Functions:
    init: Any
    update: Any
    final: Any


@functools.cache
def _library() -> ctypes.CDLL | None:
    for name in ("libcrypto.so.3", "libcrypto.so.1.1"):  # by name: ctypes.util would run a compiler to find it
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


@functools.cache
def _functions(algorithm: str) -> _Functions | None:
    """Return the functions of an algorithm, None where libcrypto does not have them or is another one than it seems."""
    library = _library()
    if library is None or algorithm not in _SIZES:
        return None
    prefix, _, _ = _SIZES[algorithm]
    try:
        found = [getattr(library, f"{prefix}_{verb}") for verb in ("Init", "Update", "Final")]
    except AttributeError:
        return None
    found[1].argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return _Functions(*found)


def maker() -> str:
    """Return what made the states of this process: version of libcrypto and kind of processor; "" without a libcrypto."""
    library = _library()
    if library is None:
        return ""
    library.OpenSSL_version_num.restype = ctypes.c_ulong
    return f"{library.OpenSSL_version_num():x} {platform.machine()}"


class KeptHash:
    """Like an object of hashlib, and its state can be had. Not for two threads at once; `update` releases the GIL."""

    def __init__(self, algorithm: str, state: bytes | None = None) -> None:
        """Begin anew, or go on from a `state`. Raises ValueError where that cannot be done."""
        functions = _functions(algorithm)
        if functions is None:
            raise ValueError(f"libcrypto has no {algorithm} whose state can be kept")
        self._functions = functions
        self._algorithm = algorithm
        _, size, self._digest_size = _SIZES[algorithm]
        # Some room behind it: should a later libcrypto have a larger context, it must not write past ours.
        self._context = ctypes.create_string_buffer(size + 64)
        self._size = size
        if state is None:
            functions.init(self._context)
        elif len(state) != size:
            raise ValueError(f"a state of {algorithm} has {size} bytes, not {len(state)}")
        else:
            ctypes.memmove(self._context, state, size)

    @property
    def state(self) -> bytes:
        """Everything there is to know: give it to another KeptHash of the same algorithm and `maker`."""
        return self._context.raw[: self._size]

    @property
    def hashed(self) -> int:
        """Bytes hashed so far, as the state itself counts them."""
        at, width = _LENGTH_AT[self._algorithm]
        low, high = (int.from_bytes(self._context.raw[at + step : at + step + width], "little") for step in (0, width))
        return (high << 8 * width | low) // 8

    def update(self, data: bytes | memoryview) -> None:
        """Hash more bytes. A memoryview must be writable and in one piece, as those of the shelf are."""
        if isinstance(data, bytes):
            self._functions.update(self._context, data, len(data))
        elif data.readonly:
            self.update(bytes(data))
        elif len(data):
            self._functions.update(self._context, ctypes.addressof(ctypes.c_char.from_buffer(data)), len(data))

    def hexdigest(self) -> str:
        """Return the digest of what was hashed so far; more may follow."""
        context = ctypes.create_string_buffer(self._context.raw, len(self._context))
        digest = ctypes.create_string_buffer(self._digest_size)
        self._functions.final(digest, context)
        return digest.raw.hex()
