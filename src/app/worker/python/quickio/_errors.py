"""What goes wrong: errors that clients are answered, and errors of who uses the library."""

from __future__ import annotations

from typing import Any

from quickio._json import encode
from quickio._wire import TEXT_BYTES_MAX

OK = 200
FAILED = 500


class NotRunning(RuntimeError):
    """There is no server yet: the script is being loaded or started, or runs by itself."""


class AlreadyAnswered(RuntimeError):
    """What was asked has its answer."""


class Refusal(Exception):
    """Raised by a function of the application: the answer is this error. Nothing is logged.

    `code` is 1 to 65535, but not 200; `message` is for whoever reads it, `data` for the client's program.
    """

    def __init__(self, code: int, message: str | None = None, data: Any = None) -> None:
        super().__init__(code, message)
        self.code = error_code(code)
        self.message = message
        self._text = None if message is None else text_bytes(message)
        self._data = encode(data)

    def __str__(self) -> str:
        return str(self.code) if self.message is None else f"{self.code} {self.message}"


class BadData(Refusal):
    """The client sent data that is no JSON: 400."""

    def __init__(self) -> None:
        super().__init__(400, "invalid JSON")


class Dropped(Refusal):
    """Nobody will ever answer: the client has gone, let its time pass, or answered what is no JSON.

    Where a function lets it pass, whoever waits for that function is answered 500.
    """

    def __init__(self) -> None:
        super().__init__(FAILED)


def error_code(code: int) -> int:
    """Checks the code of an error."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a code is an int, not {type(code).__name__}")
    if not 1 <= code <= 65535 or code == OK:
        raise ValueError(f"{code} is no code of an error: those are 1 to 65535, but not {OK}")
    return code


def text_bytes(text: str) -> bytes:
    """A text for the wire: a message, an address."""
    if not isinstance(text, str):
        raise TypeError(f"a text is a str, not {type(text).__name__}")
    raw = text.encode("utf-8", "replace")
    if len(raw) > TEXT_BYTES_MAX:
        raise ValueError(f"a text of {len(raw)} bytes: {TEXT_BYTES_MAX} is the most")
    return raw
