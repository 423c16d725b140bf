"""What a function may return, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from quickio._json import encode
from quickio._links import Callback, Link

if TYPE_CHECKING:
    from quickio._events import Reply


class Answer:
    """An answer with a callback: the client may answer it, which calls `callback(reply)`.

    What that returns answers the reply, and may be an `Answer` with a callback again.
    """

    __slots__ = ("_data", "_callback")

    def __init__(self, data: Any = None, callback: Optional[Callable[[Reply], object]] = None) -> None:
        self._data = encode(data)
        self._callback = None if callback is None else function(callback)


class Never:
    """The type of `NEVER`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NEVER"


NEVER = Never()
"""Returned by a function: there is no answer, ever."""


def function(value: Any) -> Callable[..., object]:
    """Checks that something can be called."""
    if not callable(value):
        raise TypeError(f"a function is needed, not {value!r}")
    return value  # type: ignore[no-any-return]


def give(link: Link, request: int, result: object) -> None:
    """Answers a request by what a function returned. Raises, and does nothing, where that can be no answer."""
    if result is None:
        link.answer_null(request)
    elif isinstance(result, Answer):
        callback = result._callback
        link.answer(request, result._data, None if callback is None else Callback(callback))
    elif result is NEVER:
        link.answer_code(request, 0)
    else:
        link.answer(request, encode(result))
