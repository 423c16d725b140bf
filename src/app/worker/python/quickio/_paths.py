"""Event paths: cleaned as the server cleans them, and encoded for frames."""

from __future__ import annotations

import re
import zlib

PATH_BYTES_MAX = 1024
# The size of the cache of encoded paths. An application that broadcasts to more paths than this cleans them each time.
CACHED_PATHS_MAX = 4096

_INVALID = re.compile(r"[^A-Za-z0-9_/-]+")
_SLASHES = re.compile(r"//+")
_cache: dict[str, tuple[bytes, int]] = {}


def clean(path: str) -> str:
    """Returns the path as the server cleans it. Raises `ValueError` if it is not a valid path."""
    if not isinstance(path, str):
        raise TypeError(f"a path must be a str, not {type(path).__name__}")
    if not path.startswith("/"):
        raise ValueError(f"a path must begin with a slash: {path!r}")
    cleaned = _SLASHES.sub("/", _INVALID.sub("", path)).rstrip("/")
    if not cleaned:
        raise ValueError(f"the path is empty: {path!r} has none of the letters, digits, - and _ that a path may have")
    if len(cleaned) > PATH_BYTES_MAX:
        raise ValueError(f"the path is longer than {PATH_BYTES_MAX} bytes")
    return cleaned


def encode(path: str) -> tuple[bytes, int]:
    """Returns the cleaned path as bytes, and a hash of it that is the same in all processes."""
    known = _cache.get(path) if type(path) is str else None
    if known is None:
        raw = clean(path).encode("ascii")
        known = (raw, zlib.crc32(raw))
        if len(_cache) >= CACHED_PATHS_MAX:
            _cache.clear()
        _cache[path] = known
    return known


def is_reserved(path: str) -> bool:
    """Returns whether a cleaned path belongs to the server itself."""
    return path == "/qio" or path.startswith("/qio/")
