"""JSON as the server accepts it: strict, in UTF-8, without spaces."""

from __future__ import annotations

import json
import json.encoder
from typing import Any, Callable, NoReturn

from quickio._wire import DATA_BYTES_MAX


class Json:
    """A JSON text that is sent unchanged. It may be used in every place that expects data.

    >>> app.broadcast("/news", Json('{"text":"hello"}'))

    Raises `ValueError` if the text is not valid JSON. The text of `event.json` has not been validated.
    """

    __slots__ = ("_bytes",)
    _bytes: bytes

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a JSON text must be a str, not {type(text).__name__}")
        encoded = text.encode("utf-8")
        decode(encoded)
        self._bytes = _check_size(encoded)

    @classmethod
    def _unchecked(cls, raw: bytes) -> Json:
        self = cls.__new__(cls)
        self._bytes = raw
        return self

    @property
    def text(self) -> str:
        """The text. It is never empty: data that a client left out is `null`."""
        return str(self._bytes, "utf-8", "replace") or "null"

    def parse(self) -> Any:
        """Returns the parsed value. Raises `ValueError` if the text is not valid JSON."""
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
    """Returns the value as JSON text. `None` gives an empty text, which means `null` in a frame.

    Raises `TypeError` or `ValueError` if the value has no JSON form.
    """
    if value is None:
        return b""
    if isinstance(value, Json):
        return value._bytes
    try:
        return _check_size(_to_text(value).encode("utf-8"))
    except UnicodeEncodeError:
        # UTF-8 cannot represent half of a surrogate pair, but an escape sequence can.
        return _check_size(_ascii.encode(value).encode("ascii"))
    except RecursionError:
        raise ValueError("the data contains itself, or is nested too deeply") from None


def decode(raw: bytes) -> Any:
    """Returns the value of a JSON text, or `None` for an empty text. Raises `ValueError` if it is not valid JSON."""
    if not raw:
        return None
    try:
        value = _decode(str(raw, "utf-8"))
        if b"\\ud" in raw or b"\\uD" in raw:
            # A string with half of a surrogate pair cannot be printed, stored or sent. Reject it here rather than
            # let it fail later in unrelated code.
            _to_text(value).encode("utf-8")
        return value
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _check_size(raw: bytes) -> bytes:
    if len(raw) > DATA_BYTES_MAX:
        raise ValueError(f"the data has {len(raw)} bytes; at most {DATA_BYTES_MAX} are allowed")
    return raw


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _encoder(ensure_ascii: bool) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False, check_circular=False, separators=(",", ":"))


def _fast_encoder() -> Callable[[Any], str]:
    """Returns an encoder whose C part is created once.

    `JSONEncoder.encode` creates the C encoder on each call, which takes as long as the encoding itself.
    """
    plain = _encoder(ensure_ascii=False)
    try:
        make: Any = getattr(json.encoder, "c_make_encoder")
        quote: Any = getattr(json.encoder, "encode_basestring")
        pieces = make(None, plain.default, quote, None, ":", ",", False, False, False)
        if "".join(pieces({"a": [1, "é"]}, 0)) == '{"a":[1,"é"]}':
            return lambda value: "".join(pieces(value, 0))
    except (AttributeError, TypeError):
        pass  # these names are not public; other versions of Python may lack them
    return plain.encode


_to_text = _fast_encoder()
_ascii = _encoder(ensure_ascii=True)
_decode = json.JSONDecoder(parse_constant=_reject_constant).decode
