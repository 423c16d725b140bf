"""Promises to answer later."""

from __future__ import annotations

from threading import Lock
from typing import Any

from quickio._answers import NEVER, Answer, give
from quickio._errors import FAILED, OK, AlreadyAnswered, Refusal, error_code
from quickio._links import Link

REFUSED = 401


class Promise:
    """What is common: one request, which is answered once. One that nobody keeps any more answers 500."""

    __slots__ = ("_link", "_request", "_answered", "__weakref__")

    def __init__(self, link: Link, request: int) -> None:
        self._link = link
        self._request = request
        # Held from the answer on. Of all threads that try, one gets it.
        self._answered = Lock()

    def __del__(self) -> None:
        if self._claim():
            self._link.answer_code(self._request, FAILED)

    def _claim(self) -> bool:
        return self._answered.acquire(False)

    def _take(self) -> None:
        if not self._claim():
            raise AlreadyAnswered("this has its answer")


class _Answered(Promise):
    """What is there in place of a promise when a request has its answer: none can be made any more."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def _claim(self) -> bool:
        return False


ANSWERED = _Answered()


class Later(Promise):
    """The promise to answer an event or a reply: from any thread, at any time, once."""

    __slots__ = ()

    def answer(self, data: Any = None) -> None:
        """Answers with data, or an `Answer`. Raises `AlreadyAnswered` the second time."""
        result = data if isinstance(data, Answer) or data is NEVER else Answer(data)
        self._take()
        give(self._link, self._request, result)

    def error(self, code: int, message: str | None = None, data: Any = None) -> None:
        """Answers with an error, as `Refusal` does."""
        refusal = Refusal(code, message, data)
        self._take()
        refuse(self._link, self._request, refusal)


class LaterDecision(Promise):
    """The promise to decide about a subscription: from any thread, at any time, once."""

    __slots__ = ()

    def accept(self) -> None:
        """The client is subscribed from now on. Raises `AlreadyAnswered` the second time."""
        self._take()
        decide(self._link, self._request, True)

    def refuse(self) -> None:
        """The client is not subscribed."""
        self._take()
        decide(self._link, self._request, False)


def refuse(link: Link, request: int, refusal: Refusal) -> None:
    """Answers a request with an error. Raises, and does nothing, where a class of the application has spoilt it."""
    link.answer_code(request, error_code(refusal.code), refusal._text, refusal._data)


def decide(link: Link, request: int, accepted: bool) -> None:
    """Answers whether a client may subscribe."""
    link.answer_code(request, OK if accepted else REFUSED)
