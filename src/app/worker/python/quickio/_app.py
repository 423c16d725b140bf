"""The application: what it registers, and what it can do."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Callable, Dict, List, Optional, TypeVar

from quickio import _paths
from quickio._answers import function as checked_function
from quickio._client import Client
from quickio._errors import NotRunning, text_bytes
from quickio._events import Reply
from quickio._json import encode
from quickio._links import Callback, Link
from quickio._registration import Registration
from quickio._report import show
from quickio._timers import Timer, Timers
from quickio._wire import BROADCAST, CLOSE, MOVE, frame

Hook = TypeVar("Hook", bound=Callable[[], object])
GoneHook = TypeVar("GoneHook", bound=Callable[[Client], object])

LEVELS = ("error", "warn", "info", "debug", "trace")
THREADS_MAX = 1000


class App:
    """The application of this process. Its functions may be called by any thread, unless they say otherwise."""

    def __init__(self) -> None:
        self.name = ""
        """The application's name: its file's, without the ending. Empty without a server, as what follows is."""
        self.instance = 0
        """Which of the application's processes this is, from 0."""
        self.instances = 1
        """How many there are."""
        self.settings: Dict[str, str] = {}
        """The section `[app-settings.NAME]` of the server's settings."""
        self._threads = 16
        self._registrations: Dict[str, Registration] = {}
        self._start: List[Callable[[], object]] = []
        self._stop: List[Callable[[], object]] = []
        self._self_test: List[Callable[[], object]] = []
        self._gone: List[Callable[[Client], object]] = []
        self._timers = Timers()
        self._is_open = True
        self._links: List[Link] = []
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._loop_thread = 0
        self._log_line: Optional[Callable[[str, str], None]] = None
        self._now_ms: Callable[[], int] = lambda: 0

    # What is registered, while the script is loaded.

    def event(self, path: str, children: bool = False, subscriptions: bool = True) -> Registration:
        """Registers an event. Called with a function, as a decorator is, the registration gets its handler.

        `children`: paths below it are handled, too. `subscriptions`: clients may subscribe; everyone may where there is
        no on-hook.
        """
        if callable(path):
            raise TypeError("a path is missing: @app.event('/path')")
        cleaned = _paths.clean(path)
        if _paths.is_reserved(cleaned):
            raise ValueError(f"{cleaned} is the server's own")
        if cleaned in self._registrations:
            raise ValueError(f"{cleaned} is registered already")
        if not self._is_open:
            raise RuntimeError(f"{cleaned}: the server has been told what there is, and this comes too late")
        registration = Registration(cleaned, bool(children), bool(subscriptions), lambda: self._is_open)
        self._registrations[cleaned] = registration
        return registration

    def start(self, function: Hook) -> Hook:
        """A decorator: runs before the first event. An exception stops the server from starting."""
        self._add(self._start, function)
        return function

    def stop(self, function: Hook) -> Hook:
        """A decorator: runs at the end, when everything that was under way is done."""
        self._add(self._stop, function)
        return function

    def self_test(self, function: Hook) -> Hook:
        """A decorator: runs for `quickio test-app`, and only then. An exception is a failure."""
        self._add(self._self_test, function)
        return function

    def gone(self, function: GoneHook) -> GoneHook:
        """A decorator: is called with each client that has gone and whose `data` was used. It is still there."""
        self._add(self._gone, function)
        return function

    @property
    def threads(self) -> int:
        """How many threads plain functions have at most: 16 unless the script says otherwise while it is loaded."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"threads are an int, not {type(count).__name__}")
        if not 1 <= count <= THREADS_MAX:
            raise ValueError(f"{count} threads: there may be 1 to {THREADS_MAX}")
        if not self._is_open:
            raise RuntimeError("the threads are there already")
        self._threads = count

    # What it can do, while the server is there.

    def broadcast(self, path: str, data: Any = None) -> None:
        """Sends to all who have subscribed to the path."""
        raw, number = _paths.encode(path)
        data_raw = encode(data)
        links = self._links or self._no_links()
        links[number % len(links)].write(frame(BROADCAST, raw, data_raw))

    def send(
        self,
        client: Client,
        path: str,
        data: Any = None,
        callback: Optional[Callable[[Reply], object]] = None,
        dropped: Optional[Callable[[], object]] = None,
    ) -> None:
        """Sends an event to one client, subscribed or not.

        `callback(reply)` is called when the client answers it; what that returns answers the reply. `dropped()` is
        called when that will never happen.
        """
        if callback is None and dropped is not None:
            raise TypeError("without a callback there is nothing that could be dropped")
        offered = None
        if callback is not None:
            offered = Callback(checked_function(callback), None if dropped is None else checked_function(dropped))
        link = self._link_of(client)
        if offered is not None:
            offered.client = client._key
        link.send(client._key, _paths.encode(path)[0], encode(data), offered)

    def ask(self, client: Client, path: str, data: Any = None) -> asyncio.Future[Any]:
        """Sends an event to one client, and awaits what it answers: `await app.ask(...)`.

        Raises `Dropped` where it never does. For async functions of this application only.
        """
        link, raw, text = self._link_of(client), _paths.encode(path)[0], encode(data)
        loop = self._loop
        if loop is None or threading.get_ident() != self._loop_thread:
            raise RuntimeError("app.ask is for async functions: a plain one has `app.send` with a callback")
        future = loop.create_future()
        link.send(client._key, raw, text, Callback(future=future))
        return future

    def close(self, client: Client) -> None:
        """Closes a client's connection, once all that was sent before is delivered."""
        self._link_of(client).write(frame(CLOSE, client=client._key))

    def move(self, client: Client, address: str) -> None:
        """Sends a client to another server, and closes its connection."""
        self._link_of(client).write(frame(MOVE, text_bytes(address), client=client._key))

    def after(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Calls a function later, once, by the server's clock. Before the server is there the time has not begun."""
        return self._timers.set(seconds, function, repeats=False)

    def every(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Calls a function again and again, by the server's clock. A run is left out while the last one is not done."""
        return self._timers.set(seconds, function, repeats=True)

    def now(self) -> float:
        """Seconds since the server began, as it has last said."""
        return self._now_ms() / 1000

    def log(self, level: str, text: str) -> None:
        """A line for the server's log. The level is error, warn, info, debug or trace."""
        if level not in LEVELS:
            raise ValueError(f"the level {level!r} is none of {', '.join(LEVELS)}")
        if not isinstance(text, str):
            raise TypeError(f"a text is a str, not {type(text).__name__}")
        if self._log_line is None:
            show(f"{level}: {text}")
        else:
            self._log_line(level, text)

    # For the library.

    def _begin(
        self, loop: asyncio.AbstractEventLoop, links: List[Link], now_ms: Callable[[], int], told: List[Dict[str, int]]
    ) -> None:
        """The server is there, and has been told of these timers. The loop's thread calls it."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._links, self._now_ms = links, now_ms
        self._timers.begin(links[0], told)

    def _add(self, functions: List[Any], function: Any) -> None:
        checked_function(function)
        if not self._is_open:
            raise RuntimeError("the application runs already: this comes too late")
        functions.append(function)

    def _link_of(self, client: Client) -> Link:
        if not isinstance(client, Client):
            raise TypeError(f"a client is a Client, not {type(client).__name__}")
        if not self._links:
            self._no_links()
        return client._link

    def _no_links(self) -> List[Link]:
        raise NotRunning("there is no server yet")

    def _leave(self) -> None:
        """For a forked child: the server is its parent's."""
        self._links = []
        self._log_line = None
