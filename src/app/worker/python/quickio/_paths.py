"""Event paths: cleaned as the server cleans them, and what they are on the wire."""

from __future__ import annotations

import re
import zlib

PATH_BYTES_MAX = 1024
# Paths whose bytes are kept. An application that broadcasts to more of them at a time pays for cleaning.
KNOWN_PATHS_MAX = 4096

_FOREIGN = re.compile(r"[^A-Za-z0-9_/-]+")
_SLASHES = re.compile(r"//+")
_known: dict[str, tuple[bytes, int]] = {}


def clean(path: str) -> str:
    """What the server makes of a path. Raises `ValueError` where it is none."""
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {type(path).__name__}")
    if not path.startswith("/"):
        raise ValueError(f"a path begins with a slash: {path!r}")
    cleaned = _SLASHES.sub("/", _FOREIGN.sub("", path)).rstrip("/")
    if not cleaned:
        raise ValueError(f"the path is empty: {path!r}")
    if len(cleaned) > PATH_BYTES_MAX:
        raise ValueError(f"the path is longer than {PATH_BYTES_MAX} bytes")
    return cleaned


def encode(path: str) -> tuple[bytes, int]:
    """The cleaned path in bytes, and a number that is the same for it in each process."""
    known = _known.get(path) if type(path) is str else None
    if known is None:
        raw = clean(path).encode("ascii")
        known = (raw, zlib.crc32(raw))
        if len(_known) >= KNOWN_PATHS_MAX:
            _known.clear()
        _known[path] = known
    return known


def is_reserved(path: str) -> bool:
    """Whether a cleaned path belongs to the server itself."""
    return path == "/qio" or path.startswith("/qio/")
