"""What comes over the links, and what is done about it."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Sequence

from quickio import _wire
from quickio._client import client_of
from quickio._errors import FAILED, BadData, Dropped
from quickio._events import Event, Reply, Subscription, Unsubscribed
from quickio._links import Callback, Link
from quickio._pool import Job
from quickio._registration import Registration
from quickio._runner import Outcome, Runner, is_async
from quickio._timers import Timers
from quickio._wire import CLIENT, KIND, NUMBER, REQUEST, TIME, ClientKey, Frame, Head, ProtocolError


class Clock:
    """The server's time, as it was last told."""

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms = 0


class Dispatcher:
    """Starts the function that each frame is for. The loop's thread calls it.

    What is for plain functions is gathered, and goes to the threads when a piece is through.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registrations: Sequence[Registration],
        gone: Sequence[Callable[..., object]],
        timers: Timers,
        runner: Runner,
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._registrations = registrations
        self._gone = gone
        self._timers = timers
        self._runner = runner
        self._clock = clock
        self._jobs: List[Job] = []
        self._rare: Dict[int, Callable[[Link, Head, bytes, bytes], None]] = {
            _wire.ON: self._on,
            _wire.OFF: self._off,
            _wire.REPLY: self._reply,
            _wire.DROPPED: self._dropped,
            _wire.TIMER: self._timer,
            _wire.GONE: self._client_gone,
        }

    def take(self, link: Link, frames: List[Frame]) -> None:
        """Takes what a link has brought. Raises `ProtocolError` for what the server must not send."""
        if not frames:
            return
        # Links are read one after the other, and each may lag behind: time does not go back for that.
        self._clock.ms = max(self._clock.ms, frames[-1][0][TIME])
        event, event_kind = self._event, _wire.EVENT
        for head, text, data in frames:
            if head[KIND] == event_kind:
                event(link, head, text, data)
            else:
                self._take_rare(link, head, text, data)
        if self._jobs:
            self._runner.submit(self._jobs)
            self._jobs.clear()

    def unanswerable(self, callback: Callback) -> None:
        """A callback will never be answered."""
        if callback.future is not None:
            _set(callback.future, Dropped())
        elif callback.dropped is not None:
            self._runner.start(callback.dropped, (), Outcome("a `dropped` function"), callback.client)

    def _event(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        registration = self._registration(head)
        handler = registration._handler
        if handler is None:
            link.answer_code(head[REQUEST], FAILED)
            return
        event = Event(link, head, registration.path, text, data)
        if registration._handler_is_async:
            link.under_way[head[REQUEST]] = self._runner.task(handler, (event,), event)
        else:
            link.under_way[head[REQUEST]] = None
            self._jobs.append((head[CLIENT], handler, (event,), event))

    def _take_rare(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        take = self._rare.get(head[KIND])
        if take is None:
            raise ProtocolError(f"a frame of type {head[KIND]}")
        take(link, head, text, data)

    def _on(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        registration = self._registration(head)
        hook = registration._on_hook
        subscription = Subscription(link, head, registration.path, text, data)
        if hook is None:
            link.answer_code(head[REQUEST], FAILED)
        else:
            self._request(link, head, hook, subscription)

    def _off(self, link: Link, head: Head, text: bytes, _data: bytes) -> None:
        registration = self._registration(head)
        hook = registration._off_hook
        if hook is None:
            return
        ended = Unsubscribed(client_of(link, head[CLIENT]), registration.path, text)
        outcome = Outcome(f"the off-hook of {registration.path}")
        if is_async(hook):
            self._runner.start(hook, (ended,), outcome)
        else:
            self._jobs.append((head[CLIENT], hook, (ended,), outcome))

    def _reply(self, link: Link, head: Head, _text: bytes, data: bytes) -> None:
        callback = link.callbacks.pop(head[NUMBER], None)
        if callback is None:
            raise ProtocolError(f"a reply to callback {head[NUMBER]}, which is not open")
        reply = Reply(link, head, data)
        if callback.future is not None:
            self._asked(callback.future, reply)
        elif callback.function is not None:
            self._request(link, head, callback.function, reply)

    def _dropped(self, link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        callback = link.callbacks.pop(head[NUMBER], None)
        if callback is None:
            raise ProtocolError(f"callback {head[NUMBER]} is dropped, which is not open")
        if callback.dropped is None or is_async(callback.dropped):
            self.unanswerable(callback)
        else:
            # Behind what the same client has sent before.
            self._jobs.append((callback.client, callback.dropped, (), Outcome("a `dropped` function")))

    def _timer(self, _link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        self._timers.fire(head[NUMBER], self._runner)

    def _client_gone(self, link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        """Its data is for all that was sent before: what waits for a thread goes first, and tasks that are to begin."""
        if not self._jobs and self._runner.has_no_plain():
            self._loop.call_soon(self._forget, link, head[CLIENT])
        else:
            forget = (self._forget, link, head[CLIENT])
            self._jobs.append((head[CLIENT], self._loop.call_soon_threadsafe, forget, Outcome("app.gone")))

    def _forget(self, link: Link, key: ClientKey) -> None:
        client = link.watched.pop(key, None)
        if client is not None:
            for function in self._gone:
                self._runner.start(function, (client,), Outcome("a function of app.gone"), key)

    def _request(self, link: Link, head: Head, function: Callable[..., object], request: Any) -> None:
        if is_async(function):
            link.under_way[head[REQUEST]] = self._runner.task(function, (request,), request)
        else:
            link.under_way[head[REQUEST]] = None
            self._jobs.append((head[CLIENT], function, (request,), request))

    def _asked(self, future: asyncio.Future[Any], reply: Reply) -> None:
        """What somebody waits for in the midst of a function."""
        try:
            data = reply.data
        except BadData as error:
            reply._fail(error)
            _set(future, Dropped())
        else:
            reply._settle(None)
            _set(future, data)

    def _registration(self, head: Head) -> Registration:
        try:
            return self._registrations[head[NUMBER]]
        except IndexError:
            raise ProtocolError(f"event {head[NUMBER]} of {len(self._registrations)}") from None


def _set(future: asyncio.Future[Any], result: object) -> None:
    """Wakes who waits, unless nobody does any more."""
    if future.done():
        return
    if isinstance(result, Dropped):
        future.set_exception(result)
    else:
        future.set_result(result)
