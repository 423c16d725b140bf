"""What functions are given: events, replies, subscriptions. Each knows how to be answered."""

from __future__ import annotations

from typing import Any, Optional

from quickio._answers import give
from quickio._client import Client, client_of
from quickio._errors import FAILED, AlreadyAnswered, BadData, Refusal
from quickio._json import Json, decode
from quickio._later import ANSWERED, Later, LaterDecision, Promise, decide, refuse
from quickio._links import Link
from quickio._report import report
from quickio._wire import CLIENT, FLAGS, REQUEST, WANTS_ANSWER, Head

_UNPARSED: Any = object()


class _AtPath:
    """Where something happens: a registered path, and what follows it."""

    __slots__ = ()
    path: str
    _text: bytes

    @property
    def extra(self) -> str:
        """The rest of the path, from the slash on; empty where there is none."""
        return str(self._text, "utf-8", "replace")

    @property
    def full_path(self) -> str:
        """`path` and `extra`: a broadcast to it reaches those who subscribed to it."""
        return self.path + self.extra if self._text else self.path


class _Request:
    """What a client asks for, and waits for."""

    __slots__ = ("_link", "_head", "_raw", "_client", "_value", "_promise")
    _link: Link
    _head: Head
    _raw: bytes
    _client: Optional[Client]
    _value: Any
    _promise: Optional[Promise]

    @property
    def client(self) -> Client:
        """Who has sent it."""
        client = self._client
        if client is None:
            client = self._client = client_of(self._link, self._head[CLIENT])
        return client

    @property
    def data(self) -> Any:
        """The client's JSON, parsed when it is first asked for. Raises `BadData` where it is none."""
        if self._value is _UNPARSED:
            try:
                self._value = decode(self._raw)
            except ValueError:
                raise BadData from None
        return self._value

    @property
    def json(self) -> Json:
        """The client's JSON as it came, to be passed on. Nobody has checked it."""
        return Json._unchecked(self._raw)

    def _settle(self, result: object) -> None:
        """Answers by what the function returned."""
        raise NotImplementedError

    def _fail(self, error: BaseException) -> None:
        """Answers an exception that left the function."""
        if not isinstance(error, Refusal):
            report(self._name(), error)
        if self._promise is not None and not self._promise._claim():
            return
        if not isinstance(error, Refusal) or not self._refuse(error):
            self._link.answer_code(self._head[REQUEST], FAILED)
        self._promise = ANSWERED

    def _refuse(self, refusal: Refusal) -> bool:
        """Answers by it, unless it is of a class that has set another code, or has not called `super().__init__`."""
        try:
            refuse(self._link, self._head[REQUEST], refusal)
        except Exception as error:
            report(self._name(), error)
            return False
        return True

    def _is_promised(self, result: object) -> bool:
        """Whether it is answered later. A promise that was made is what has to be returned."""
        if self._promise is not None:
            if result is self._promise:
                return True
            raise TypeError("it made a promise to answer later, but returned something else: `return later`")
        if isinstance(result, Promise):
            raise TypeError("it returned the promise of another request")
        return False

    def _name(self) -> str:
        raise NotImplementedError


class _Answerable(_Request):
    """What is answered with data."""

    __slots__ = ()

    @property
    def wants_answer(self) -> bool:
        """Whether the client waits for an answer. One that nobody waits for is dropped."""
        return self._head[FLAGS] & WANTS_ANSWER != 0

    def later(self) -> Later:
        """A promise to answer later, from any thread. Return it."""
        promise = self._promise
        if promise is None:
            promise = self._promise = Later(self._link, self._head[REQUEST])
        if not isinstance(promise, Later):
            raise AlreadyAnswered("this has its answer: the function has returned")
        return promise

    def _settle(self, result: object) -> None:
        if (result is not None or self._promise is not None) and self._is_promised(result):
            return
        give(self._link, self._head[REQUEST], result)
        self._promise = ANSWERED


class Event(_Answerable, _AtPath):
    """An event that a client has sent.

    `path` is where the handler is registered.
    """

    __slots__ = ("path", "_text")

    def __init__(self, link: Link, head: Head, path: str, text: bytes, raw: bytes) -> None:
        self._link = link
        self._head = head
        self.path = path
        self._text = text
        self._raw = raw
        self._client = None
        self._value = _UNPARSED
        self._promise = None

    def _name(self) -> str:
        return f"the handler of {self.path}"


class Reply(_Answerable):
    """What a client answers to a callback."""

    __slots__ = ()

    def __init__(self, link: Link, head: Head, raw: bytes) -> None:
        self._link = link
        self._head = head
        self._raw = raw
        self._client = None
        self._value = _UNPARSED
        self._promise = None

    def _name(self) -> str:
        return "a callback"


class Subscription(_Request, _AtPath):
    """The wish of a client to subscribe; `data` is what it has sent along.

    `path` is where the on-hook is registered.
    """

    __slots__ = ("path", "_text")

    def __init__(self, link: Link, head: Head, path: str, text: bytes, raw: bytes) -> None:
        self._link = link
        self._head = head
        self.path = path
        self._text = text
        self._raw = raw
        self._client = None
        self._value = _UNPARSED
        self._promise = None

    def later(self) -> LaterDecision:
        """A promise to decide later, from any thread. Return it."""
        promise = self._promise
        if promise is None:
            promise = self._promise = LaterDecision(self._link, self._head[REQUEST])
        if not isinstance(promise, LaterDecision):
            raise AlreadyAnswered("this has its answer: the function has returned")
        return promise

    def _settle(self, result: object) -> None:
        if self._is_promised(result):
            return
        # Whatever else is true by accident must not let anybody in: `NEVER`, a generator, a future.
        if result is not True and result is not False:
            raise TypeError(f"an on-hook returns True, False, or its promise, not {type(result).__name__}")
        decide(self._link, self._head[REQUEST], result)
        self._promise = ANSWERED

    def _name(self) -> str:
        return f"the on-hook of {self.path}"


class Unsubscribed(_AtPath):
    """A subscription that has ended. `path` is where the off-hook is registered, `client` whose it was."""

    __slots__ = ("client", "path", "_text")

    def __init__(self, client: Client, path: str, text: bytes) -> None:
        self.client = client
        self.path = path
        self._text = text
