"""Values that functions of the application may return, and their conversion to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from quickio._json import encode
from quickio._links import Callback, Link

if TYPE_CHECKING:
    from quickio._events import Reply


class Answer:
    """An answer with a callback. If the client replies to it, `callback(reply)` is called.

    The callback's return value answers the reply, and may be an `Answer` with another callback.
    """

    __slots__ = ("_data", "_callback")

    def __init__(self, data: Any = None, callback: Optional[Callable[[Reply], object]] = None) -> None:
        self._data = encode(data)
        self._callback = None if callback is None else check_callable(callback)


class Never:
    """The type of `NEVER`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEVER"


NEVER = Never()
"""Returned by a function if the client must not get any answer."""


def check_callable(value: Any) -> Callable[..., object]:
    """Returns the value. Raises `TypeError` if it cannot be called."""
    if not callable(value):
        raise TypeError(f"expected a function, not {value!r}")
    return value  # type: ignore[no-any-return]


def send_result(link: Link, request: int, result: object) -> None:
    """Answers a request with a function's return value. Raises, and sends nothing, if the value cannot be an answer."""
    if result is None:
        link.answer_null(request)
    elif isinstance(result, Answer):
        callback = result._callback
        link.answer(request, result._data, None if callback is None else Callback(callback))
    elif result is NEVER:
        link.answer_code(request, 0)
    else:
        link.answer(request, encode(result))
