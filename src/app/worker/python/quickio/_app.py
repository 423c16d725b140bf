"""The application: registrations, and the commands that it sends to the server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Callable, Dict, List, Optional, TypeVar

from quickio import _paths
from quickio._answers import check_callable
from quickio._client import Client
from quickio._errors import NotRunning, encode_text
from quickio._events import Reply
from quickio._json import encode
from quickio._links import Callback, Link
from quickio._registration import Registration
from quickio._report import print_error
from quickio._timers import Timer, Timers
from quickio._wire import BROADCAST, CLOSE, MOVE, frame

Hook = TypeVar("Hook", bound=Callable[[], object])
GoneHook = TypeVar("GoneHook", bound=Callable[[Client], object])

LEVELS = ("error", "warn", "info", "debug", "trace")
THREADS_MAX = 1000


class App:
    """The application of this process. Any thread may call its functions, unless their documentation restricts it."""

    def __init__(self) -> None:
        self.name = ""
        """The application's name: the name of its file without the ending. Empty without a server."""
        self.instance = 0
        """The index of this process among the application's instances, from 0."""
        self.instances = 1
        """The number of the application's instances."""
        self.settings: Dict[str, str] = {}
        """The section `[app-settings.NAME]` of the server's settings. Empty without a server."""
        self._threads = 16
        self._registrations: Dict[str, Registration] = {}
        self._start_hooks: List[Callable[[], object]] = []
        self._stop_hooks: List[Callable[[], object]] = []
        self._self_tests: List[Callable[[], object]] = []
        self._gone_hooks: List[Callable[[Client], object]] = []
        self._timers = Timers()
        # Cleared when the registrations are sent to the server.
        self._accepts_registrations = True
        # Empty until the application serves events, and in a forked child.
        self._links: List[Link] = []
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._loop_thread = 0
        self._log_line: Optional[Callable[[str, str], None]] = None
        self._now_ms: Callable[[], int] = lambda: 0

    # Registration, while the script is loaded.

    def event(
        self, path: str, children: bool = False, subscriptions: bool = True, client_info: bool = False
    ) -> Registration:
        """Registers an event. The result is a decorator that sets the handler.

        `children`: the event also handles all paths below it. `subscriptions`: clients may subscribe to it; without an
        on-hook every client may. `client_info`: `event.info` has what the server knows of the client.
        """
        if callable(path):
            raise TypeError("the path is missing: write @app.event('/path')")
        cleaned = _paths.clean(path)
        if _paths.is_reserved(cleaned):
            raise ValueError(f"{cleaned} is reserved: /qio and the paths below it belong to the server")
        if cleaned in self._registrations:
            raise ValueError(f"{cleaned} is already registered")
        if not self._accepts_registrations:
            raise RuntimeError(f"cannot register {cleaned} after the start: do it while the script is loaded")
        registration = Registration(
            cleaned, bool(children), bool(subscriptions), bool(client_info), lambda: self._accepts_registrations
        )
        self._registrations[cleaned] = registration
        return registration

    def start(self, function: Hook) -> Hook:
        """Registers a function to run before the first event. If it raises, the server does not start. A decorator."""
        self._add_hook(self._start_hooks, function)
        return function

    def stop(self, function: Hook) -> Hook:
        """Registers a function that runs at the end, after all requests have been handled. A decorator."""
        self._add_hook(self._stop_hooks, function)
        return function

    def self_test(self, function: Hook) -> Hook:
        """Registers a function that runs only for `quickio test-app`. If it raises, the test fails. A decorator."""
        self._add_hook(self._self_tests, function)
        return function

    def gone(self, function: GoneHook) -> GoneHook:
        """Registers a function that is called with each disconnected client whose `data` was used. A decorator.

        The client's `data` is still available in the function.
        """
        self._add_hook(self._gone_hooks, function)
        return function

    @property
    def threads(self) -> int:
        """The maximum number of threads for plain functions: 16, unless the script changes it while it is loaded."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"the number of threads must be an int, not {type(count).__name__}")
        if not 1 <= count <= THREADS_MAX:
            raise ValueError(f"the number of threads must be 1 to {THREADS_MAX}, not {count}")
        if not self._accepts_registrations:
            raise RuntimeError("cannot change app.threads after the start: do it while the script is loaded")
        self._threads = count

    # Commands, while the application serves events.

    def broadcast(self, path: str, data: Any = None) -> None:
        """Sends an event to all clients that are subscribed to the path."""
        raw, number = _paths.encode(path)
        data_raw = encode(data)
        links = self._links or self._raise_not_running()
        links[number % len(links)].write(frame(BROADCAST, raw, data_raw))

    def send(
        self,
        client: Client,
        path: str,
        data: Any = None,
        callback: Optional[Callable[[Reply], object]] = None,
        dropped: Optional[Callable[[], object]] = None,
    ) -> None:
        """Sends an event to one client, whether or not it is subscribed.

        `callback(reply)` is called when the client replies; its return value answers the reply. `dropped()` is called
        if the client will never reply.
        """
        if callback is None and dropped is not None:
            raise TypeError("`dropped` needs a `callback`: without one there is no reply to wait for")
        offered = None
        if callback is not None:
            offered = Callback(check_callable(callback), None if dropped is None else check_callable(dropped))
        link = self._link_of(client)
        if offered is not None:
            offered.client = client._key
        link.send(client._key, _paths.encode(path)[0], encode(data), offered)

    def ask(self, client: Client, path: str, data: Any = None) -> asyncio.Future[Any]:
        """Sends an event to one client, and returns its reply: `await app.ask(...)`.

        Raises `Dropped` if the client never replies. For async functions of this application only.
        """
        link, raw, text = self._link_of(client), _paths.encode(path)[0], encode(data)
        loop = self._loop
        if loop is None or threading.get_ident() != self._loop_thread:
            raise RuntimeError("app.ask works in async functions only: in others, use app.send with a callback")
        future = loop.create_future()
        link.send(client._key, raw, text, Callback(future=future))
        return future

    def close(self, client: Client) -> None:
        """Closes a client's connection after everything queued for it has been sent."""
        self._link_of(client).write(frame(CLOSE, client=client._key))

    def move(self, client: Client, address: str) -> None:
        """Tells a client to connect to another server, and closes its connection."""
        self._link_of(client).write(frame(MOVE, encode_text(address), client=client._key))

    def after(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Calls a function once, after a time by the server's clock. The time begins when the application serves."""
        return self._timers.set(seconds, function, repeats=False)

    def every(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Calls a function repeatedly, by the server's clock. A run is skipped while the previous one is running."""
        return self._timers.set(seconds, function, repeats=True)

    def now(self) -> float:
        """Returns the seconds since the server started, as of the latest message from it."""
        return self._now_ms() / 1000

    def log(self, level: str, text: str) -> None:
        """Writes a line to the server's log. The level is error, warn, info, debug or trace."""
        if level not in LEVELS:
            raise ValueError(f"unknown log level {level!r}: use {', '.join(LEVELS)}")
        if not isinstance(text, str):
            raise TypeError(f"the text of a log line must be a str, not {type(text).__name__}")
        if self._log_line is None:
            print_error(f"{level}: {text}")
        else:
            self._log_line(level, text)

    # Called by the library.

    def _start_serving(
        self,
        loop: asyncio.AbstractEventLoop,
        links: List[Link],
        now_ms: Callable[[], int],
        announced: List[Dict[str, int]],
    ) -> None:
        """Connects the application to the server, which already has the announced timers. Runs on the loop's thread."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._links, self._now_ms = links, now_ms
        self._timers.connect(links[0], announced)

    def _add_hook(self, hooks: List[Any], function: Any) -> None:
        check_callable(function)
        if not self._accepts_registrations:
            raise RuntimeError("cannot register a hook after the start: do it while the script is loaded")
        hooks.append(function)

    def _link_of(self, client: Client) -> Link:
        if not isinstance(client, Client):
            raise TypeError(f"the client must be a Client, not {type(client).__name__}")
        if not self._links:
            self._raise_not_running()
        return client._link

    def _raise_not_running(self) -> List[Link]:
        raise NotRunning("there is no server: call this from a handler, hook, callback or timer that the server runs")

    def _disconnect(self) -> None:
        """Disconnects a forked child from the server, which belongs to its parent."""
        self._links = []
        self._log_line = None
