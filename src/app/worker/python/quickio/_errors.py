"""Exceptions: errors that answer a client, and errors in the use of this library."""

from __future__ import annotations

from typing import Any

from quickio._json import encode
from quickio._wire import TEXT_BYTES_MAX

OK = 200
FAILED = 500


class NotRunning(RuntimeError):
    """Raised when there is no server: the script is still loading or starting, or runs without a server."""


class AlreadyAnswered(RuntimeError):
    """Raised when a request has already been answered."""


class Refusal(Exception):
    """Raised by a function of the application to answer the client with an error. It is not logged.

    `code` is 1 to 65535, except 200. `message` is text for people, `data` is for the client's program.
    """

    def __init__(self, code: int, message: str | None = None, data: Any = None) -> None:
        super().__init__(code, message)
        self.code = check_code(code)
        self.message = message
        self._text = None if message is None else encode_text(message)
        self._data = encode(data)

    def __str__(self) -> str:
        return str(self.code) if self.message is None else f"{self.code} {self.message}"


class BadData(Refusal):
    """Raised when a client's data is not valid JSON. The client is answered 400."""

    def __init__(self) -> None:
        super().__init__(400, "invalid JSON")


class Dropped(Refusal):
    """Raised when a client will never reply: it has disconnected, did not reply in time, or sent invalid JSON.

    If a function does not catch it, the client whose request the function was handling is answered 500.
    """

    def __init__(self) -> None:
        super().__init__(FAILED)


def check_code(code: int) -> int:
    """Returns an error's code. Raises if it is not valid."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"an error code must be an int, not {type(code).__name__}")
    if not 1 <= code <= 65535 or code == OK:
        raise ValueError(f"{code} is not an error code: use 1 to 65535, except {OK}")
    return code


def encode_text(text: str) -> bytes:
    """Returns a text in UTF-8. Raises if it is too long for a frame."""
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    raw = text.encode("utf-8", "replace")
    if len(raw) > TEXT_BYTES_MAX:
        raise ValueError(f"the text has {len(raw)} bytes; at most {TEXT_BYTES_MAX} are allowed")
    return raw
