"""Arguments of the application's functions: events, replies, subscriptions."""

from __future__ import annotations

from typing import Any, Dict, Optional

from quickio._answers import send_result
from quickio._client import Client, ClientInfo, client_of
from quickio._errors import FAILED, AlreadyAnswered, BadData, Refusal
from quickio._json import Json, decode
from quickio._later import ANSWERED, Later, LaterDecision, Promise, send_decision, send_refusal
from quickio._links import Link
from quickio._report import report
from quickio._wire import CLIENT, FLAGS, HAS_INFO, HAS_OPTIONS, REQUEST, WANTS_ANSWER, Head

_UNPARSED: Any = object()


class _WithPath:
    """A registered path, and the rest of the client's path."""

    __slots__ = ()
    path: str
    _text: bytes

    @property
    def extra(self) -> str:
        """The rest of the client's path after `path`, with its leading slash. Empty if there is none."""
        return str(self._text, "utf-8", "replace")

    @property
    def full_path(self) -> str:
        """`path` and `extra` together. A broadcast to it reaches the clients that subscribed to it."""
        return self.path + self.extra if self._text else self.path


class _Request:
    """A request of a client, which has to be answered once."""

    __slots__ = ("_link", "_head", "_raw", "_client", "_value", "_promise")
    _link: Link
    _head: Head
    _raw: bytes
    _client: Optional[Client]
    _value: Any
    _promise: Optional[Promise]

    @property
    def client(self) -> Client:
        """The client that sent it."""
        client = self._client
        if client is None:
            client = self._client = client_of(self._link, self._head[CLIENT])
        return client

    @property
    def data(self) -> Any:
        """The client's data, parsed on first use. Raises `BadData` if it is not valid JSON."""
        if self._value is _UNPARSED:
            try:
                self._value = decode(self._raw)
            except ValueError:
                raise BadData from None
        return self._value

    @property
    def json(self) -> Json:
        """The client's data as JSON text, to be passed on. It has not been validated."""
        return Json._unchecked(self._raw)

    def _set_result(self, result: object) -> None:
        """Answers the request with the function's return value."""
        raise NotImplementedError

    def _set_exception(self, error: BaseException) -> None:
        """Answers the request after the function has raised an exception."""
        if not isinstance(error, Refusal):
            report(self._description(), error)
        if self._promise is not None and not self._promise._claim():
            return
        if not isinstance(error, Refusal) or not self._send_refusal(error):
            self._link.answer_code(self._head[REQUEST], FAILED)
        self._promise = ANSWERED

    def _send_refusal(self, refusal: Refusal) -> bool:
        """Answers the request with a refusal. Returns `False` if the refusal is not valid.

        A subclass may have set another code, or may not have called `super().__init__`.
        """
        try:
            send_refusal(self._link, self._head[REQUEST], refusal)
        except Exception as error:
            report(self._description(), error)
            return False
        return True

    def _is_promised(self, result: object) -> bool:
        """Returns whether a promise answers this request. If one was made, the function must return it."""
        if self._promise is not None:
            if result is self._promise:
                return True
            raise TypeError("it called later(), but did not return the promise: write `return later`")
        if isinstance(result, Promise):
            raise TypeError("it returned the promise of another request: return the one from its own later()")
        return False

    def _description(self) -> str:
        """Returns a description of the function, for the log."""
        raise NotImplementedError


class _RequestAtPath(_Request, _WithPath):
    """A request for a registered path."""

    __slots__ = ("path", "_text", "_info")

    def __init__(self, link: Link, head: Head, path: str, text: bytes, raw: bytes) -> None:
        self._info: Any = None
        if head[FLAGS] & HAS_INFO:
            text, _, self._info = text.partition(b"\n")
        self._link = link
        self._head = head
        self.path = path
        self._text = text
        self._raw = raw
        self._client = None
        self._value = _UNPARSED
        self._promise = None

    @property
    def info(self) -> ClientInfo:
        """What the server knows of the client, if the event was registered with `client_info=True`."""
        if isinstance(self._info, bytes):
            self._info = ClientInfo(self._info)
        if self._info is None:
            raise RuntimeError(f"register {self.path} with client_info=True to use `info`")
        info: ClientInfo = self._info
        return info


class _Answerable(_Request):
    """A request that is answered with data."""

    __slots__ = ()

    @property
    def wants_answer(self) -> bool:
        """`True` if the client waits for an answer. Otherwise an answer is discarded."""
        return self._head[FLAGS] & WANTS_ANSWER != 0

    def later(self) -> Later:
        """Returns a promise to answer later, from any thread. The function must return it."""
        promise = self._promise
        if promise is None:
            promise = self._promise = Later(self._link, self._head[REQUEST])
        if not isinstance(promise, Later):
            raise AlreadyAnswered("the request has been answered: call later() before the function returns")
        return promise

    def _set_result(self, result: object) -> None:
        if (result is not None or self._promise is not None) and self._is_promised(result):
            return
        send_result(self._link, self._head[REQUEST], result)
        self._promise = ANSWERED


class Event(_RequestAtPath, _Answerable):
    """An event that a client has sent.

    `path` is the path at which the handler is registered.
    """

    __slots__ = ()

    def _description(self) -> str:
        return f"the handler of {self.path}"


class Reply(_Answerable):
    """A client's reply to a callback."""

    __slots__ = ()

    def __init__(self, link: Link, head: Head, raw: bytes) -> None:
        self._link = link
        self._head = head
        self._raw = raw
        self._client = None
        self._value = _UNPARSED
        self._promise = None

    def _description(self) -> str:
        return "a callback"


class Subscription(_RequestAtPath):
    """A client's request to subscribe. `data` is the extra data that the client sent with it.

    `path` is the path at which the on-hook is registered.
    """

    __slots__ = ("_options",)

    def __init__(self, link: Link, head: Head, path: str, text: bytes, raw: bytes) -> None:
        self._options = b""
        if head[FLAGS] & HAS_OPTIONS:
            extra, _, rest = text.partition(b"\n")
            self._options, end, info = rest.partition(b"\n")
            text = extra + end + info
        super().__init__(link, head, path, text, raw)

    @property
    def options(self) -> Optional[Dict[str, Any]]:
        """The earlier events that the client asks for, such as `{"history": 20}`. `None` if it asks for none."""
        if not self._options:
            return None
        options: Dict[str, Any] = decode(self._options)
        return options

    def later(self) -> LaterDecision:
        """Returns a promise to decide later, from any thread. The on-hook must return it."""
        promise = self._promise
        if promise is None:
            promise = self._promise = LaterDecision(self._link, self._head[REQUEST])
        if not isinstance(promise, LaterDecision):
            raise AlreadyAnswered("the request has been answered: call later() before the on-hook returns")
        return promise

    def _set_result(self, result: object) -> None:
        if self._is_promised(result):
            return
        # Other values that happen to be true must not admit a client: `NEVER`, a generator, a future.
        if result is not True and result is not False:
            raise TypeError(f"an on-hook must return True, False or its promise, not {type(result).__name__}")
        send_decision(self._link, self._head[REQUEST], result)
        self._promise = ANSWERED

    def _description(self) -> str:
        return f"the on-hook of {self.path}"


class Unsubscribed(_WithPath):
    """A subscription that has ended. `path` is the path of the off-hook, `client` is the former subscriber."""

    __slots__ = ("client", "path", "_text")

    def __init__(self, client: Client, path: str, text: bytes) -> None:
        self.client = client
        self.path = path
        self._text = text
