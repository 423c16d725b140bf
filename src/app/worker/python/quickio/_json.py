"""JSON, as the server takes it: strict, in UTF-8, without spaces."""

from __future__ import annotations

import json
import json.encoder
from typing import Any, Callable, NoReturn

from quickio._wire import DATA_BYTES_MAX


class Json:
    """A JSON text that is passed through as it is, wherever data may stand.

    >>> app.broadcast("/news", Json('{"text":"hello"}'))

    Raises `ValueError` where the text is no JSON. `event.json` is one that nobody has checked.
    """

    __slots__ = ("_bytes",)
    _bytes: bytes

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a JSON text is a str, not {type(text).__name__}")
        encoded = text.encode("utf-8")
        decode(encoded)
        self._bytes = _bounded(encoded)

    @classmethod
    def _unchecked(cls, raw: bytes) -> Json:
        self = cls.__new__(cls)
        self._bytes = raw
        return self

    @property
    def text(self) -> str:
        """The text. Never empty: no text is `null`."""
        return str(self._bytes, "utf-8", "replace") or "null"

    def parse(self) -> Any:
        """What it says. Raises `ValueError` where it is no JSON."""
        return decode(self._bytes)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Json({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Json) and (self._bytes or b"null") == (other._bytes or b"null")

    def __hash__(self) -> int:
        return hash(self._bytes or b"null")


def encode(value: Any) -> bytes:
    """The value as JSON text; empty for None, which is the wire's `null`.

    Raises `TypeError` or `ValueError` where it cannot be JSON.
    """
    if value is None:
        return b""
    if isinstance(value, Json):
        return value._bytes
    try:
        return _bounded(_to_text(value).encode("utf-8"))
    except UnicodeEncodeError:
        # Half of a surrogate pair: no UTF-8 has it, but an escape sequence does.
        return _bounded(_ascii.encode(value).encode("ascii"))
    except RecursionError:
        raise ValueError("data that contains itself, or is nested too deeply") from None


def decode(raw: bytes) -> Any:
    """What the JSON text says; None for no text. Raises `ValueError` where it is no JSON."""
    if not raw:
        return None
    try:
        value = _decode(str(raw, "utf-8"))
        if b"\\ud" in raw or b"\\uD" in raw:
            # Half of a surrogate pair would be a string that nothing can print, store or send: an error far from here.
            _to_text(value).encode("utf-8")
        return value
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def _bounded(raw: bytes) -> bytes:
    if len(raw) > DATA_BYTES_MAX:
        raise ValueError(f"data of {len(raw)} bytes: {DATA_BYTES_MAX} is the most")
    return raw


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _encoder(ensure_ascii: bool) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False, check_circular=False, separators=(",", ":"))


def _fast_encoder() -> Callable[[Any], str]:
    """`JSONEncoder.encode` makes an encoder in C each time, which takes as long as encoding. This makes it once."""
    plain = _encoder(ensure_ascii=False)
    try:
        make: Any = getattr(json.encoder, "c_make_encoder")
        quote: Any = getattr(json.encoder, "encode_basestring")
        pieces = make(None, plain.default, quote, None, ":", ",", False, False, False)
        if "".join(pieces({"a": [1, "é"]}, 0)) == '{"a":[1,"é"]}':
            return lambda value: "".join(pieces(value, 0))
    except (AttributeError, TypeError):
        pass  # it is no public name: another Python may not have it
    return plain.encode


_to_text = _fast_encoder()
_ascii = _encoder(ensure_ascii=True)
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
