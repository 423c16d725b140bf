"""Promises to answer later."""

from __future__ import annotations

from threading import Lock
from typing import Any

from quickio._answers import NEVER, Answer, send_result
from quickio._errors import FAILED, OK, AlreadyAnswered, Refusal, check_code
from quickio._links import Link

UNAUTHORIZED = 401


class Promise:
    """The base of the promises. A promise answers one request once; if it is dropped unanswered, it answers 500."""

    __slots__ = ("_link", "_request", "_claimed", "__weakref__")

    def __init__(self, link: Link, request: int) -> None:
        self._link = link
        self._request = request
        # Acquired by the first answer and never released. If several threads race, one acquires it.
        self._claimed = Lock()

    def __del__(self) -> None:
        if self._claim():
            self._link.answer_code(self._request, FAILED)

    def _claim(self) -> bool:
        """Reserves the answer for the caller. Returns `False` if it was reserved before."""
        return self._claimed.acquire(False)

    def _claim_or_raise(self) -> None:
        if not self._claim():
            raise AlreadyAnswered("the request has already been answered")


class _Answered(Promise):
    """A placeholder for the promise of a request that has been answered. It prevents a new promise."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def _claim(self) -> bool:
        return False


ANSWERED = _Answered()


class Later(Promise):
    """A promise to answer an event or a reply once, from any thread, at any time."""

    __slots__ = ()

    def answer(self, data: Any = None) -> None:
        """Answers with data or an `Answer`. Raises `AlreadyAnswered` if the request has been answered."""
        result = data if isinstance(data, Answer) or data is NEVER else Answer(data)
        self._claim_or_raise()
        send_result(self._link, self._request, result)

    def error(self, code: int, message: str | None = None, data: Any = None) -> None:
        """Answers with an error, as `Refusal` does."""
        refusal = Refusal(code, message, data)
        self._claim_or_raise()
        send_refusal(self._link, self._request, refusal)


class LaterDecision(Promise):
    """A promise to accept or refuse a subscription once, from any thread, at any time."""

    __slots__ = ()

    def accept(self) -> None:
        """Subscribes the client. Raises `AlreadyAnswered` if the request has been decided."""
        self._claim_or_raise()
        send_decision(self._link, self._request, True)

    def refuse(self) -> None:
        """Does not subscribe the client. Raises `AlreadyAnswered` if the request has been decided."""
        self._claim_or_raise()
        send_decision(self._link, self._request, False)


def send_refusal(link: Link, request: int, refusal: Refusal) -> None:
    """Answers a request with an error. Raises, and sends nothing, if a subclass has made the refusal invalid."""
    link.answer_code(request, check_code(refusal.code), refusal._text, refusal._data)


def send_decision(link: Link, request: int, accepted: bool) -> None:
    """Answers a request to subscribe."""
    link.answer_code(request, OK if accepted else UNAUTHORIZED)
