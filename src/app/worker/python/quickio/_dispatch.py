"""Dispatch of the frames that arrive on the links."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Sequence

from quickio import _wire
from quickio._client import client_of, gone_client
from quickio._errors import FAILED, BadData, Dropped
from quickio._events import Event, Reply, Subscription, Unsubscribed
from quickio._links import Callback, Link
from quickio._pool import Job
from quickio._registration import Registration
from quickio._runner import Outcome, Runner, is_async
from quickio._timers import Timers
from quickio._wire import CLIENT, KIND, NUMBER, REQUEST, TIME, ClientKey, Frame, Head, ProtocolError


class Clock:
    """The server's time, as of the latest frame."""

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms = 0


class Dispatcher:
    """Starts the function that each frame is for. Only the loop's thread calls it.

    Jobs for plain functions are collected, and submitted to the threads after all frames of one read are handled.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registrations: Sequence[Registration],
        gone_hooks: Sequence[Callable[..., object]],
        timers: Timers,
        runner: Runner,
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._registrations = registrations
        self._gone_hooks = gone_hooks
        self._timers = timers
        self._runner = runner
        self._clock = clock
        self._jobs: List[Job] = []
        # One entry for each type of frame except EVENT, which is the most frequent and handled without a look-up.
        self._handlers: Dict[int, Callable[[Link, Head, bytes, bytes], None]] = {
            _wire.ON: self._handle_on,
            _wire.OFF: self._handle_off,
            _wire.REPLY: self._handle_reply,
            _wire.DROPPED: self._handle_dropped,
            _wire.TIMER: self._handle_timer,
            _wire.GONE: self._handle_gone,
        }

    def handle_frames(self, link: Link, frames: List[Frame]) -> None:
        """Handles frames that arrived on a link. Raises `ProtocolError` if the server must not send one of them."""
        if not frames:
            return
        # Links are read one after the other, and one may lag behind another. The clock never goes back.
        self._clock.ms = max(self._clock.ms, frames[-1][0][TIME])
        handle_event, event_kind = self._handle_event, _wire.EVENT
        for head, text, data in frames:
            if head[KIND] == event_kind:
                handle_event(link, head, text, data)
            else:
                self._handle_other(link, head, text, data)
        if self._jobs:
            self._runner.submit(self._jobs)
            self._jobs.clear()

    def callback_dropped(self, callback: Callback) -> None:
        """Tells the application that a callback will never get a reply."""
        if callback.future is not None:
            _complete(callback.future, Dropped())
        elif callback.dropped is not None:
            self._runner.start(callback.dropped, (), Outcome("a `dropped` function"), callback.client)

    def _handle_event(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        registration = self._registration(head)
        handler = registration._handler
        if handler is None:
            link.answer_code(head[REQUEST], FAILED)
            return
        event = Event(link, head, registration.path, text, data)
        if registration._handler_is_async:
            link.pending_requests[head[REQUEST]] = self._runner.create_task(handler, (event,), event)
        else:
            link.pending_requests[head[REQUEST]] = None
            self._jobs.append((head[CLIENT], handler, (event,), event))

    def _handle_other(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        handle = self._handlers.get(head[KIND])
        if handle is None:
            raise ProtocolError(f"unknown frame type {head[KIND]}")
        handle(link, head, text, data)

    def _handle_on(self, link: Link, head: Head, text: bytes, data: bytes) -> None:
        registration = self._registration(head)
        hook = registration._on_hook
        subscription = Subscription(link, head, registration.path, text, data)
        if hook is None:
            link.answer_code(head[REQUEST], FAILED)
        else:
            self._start_request(link, head, hook, subscription)

    def _handle_off(self, link: Link, head: Head, text: bytes, _data: bytes) -> None:
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

    def _handle_reply(self, link: Link, head: Head, _text: bytes, data: bytes) -> None:
        callback = link.callbacks.pop(head[NUMBER], None)
        if callback is None:
            raise ProtocolError(f"reply to callback {head[NUMBER]}, which is not open")
        reply = Reply(link, head, data)
        if callback.future is not None:
            self._resolve_ask(callback.future, reply)
        elif callback.function is not None:
            self._start_request(link, head, callback.function, reply)

    def _handle_dropped(self, link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        callback = link.callbacks.pop(head[NUMBER], None)
        if callback is None:
            raise ProtocolError(f"drop of callback {head[NUMBER]}, which is not open")
        if callback.dropped is None or is_async(callback.dropped):
            self.callback_dropped(callback)
        else:
            # A job of the client, so that it runs after the client's earlier events.
            self._jobs.append((callback.client, callback.dropped, (), Outcome("a `dropped` function")))

    def _handle_timer(self, _link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        self._timers.fire(head[NUMBER], self._runner)

    def _handle_gone(self, link: Link, head: Head, _text: bytes, _data: bytes) -> None:
        """Drops a client's data, after all earlier requests: queued jobs have run, and new tasks have started."""
        if not self._jobs and self._runner.is_pool_idle():
            self._loop.call_soon(self._forget, link, head[CLIENT])
        else:
            forget = (self._forget, link, head[CLIENT])
            self._jobs.append((head[CLIENT], self._loop.call_soon_threadsafe, forget, Outcome("app.gone")))

    def _forget(self, link: Link, key: ClientKey) -> None:
        # A client that is not watched here was watched by an earlier worker of this instance.
        client = link.watched.pop(key, None) or gone_client(link, key)
        for hook in self._gone_hooks:
            self._runner.start(hook, (client,), Outcome("a function of app.gone"), key)

    def _start_request(self, link: Link, head: Head, function: Callable[..., object], request: Any) -> None:
        if is_async(function):
            link.pending_requests[head[REQUEST]] = self._runner.create_task(function, (request,), request)
        else:
            link.pending_requests[head[REQUEST]] = None
            self._jobs.append((head[CLIENT], function, (request,), request))

    def _resolve_ask(self, future: asyncio.Future[Any], reply: Reply) -> None:
        """Completes the future of `App.ask` with a client's reply."""
        try:
            data = reply.data
        except BadData as error:
            reply._set_exception(error)
            _complete(future, Dropped())
        else:
            reply._set_result(None)
            _complete(future, data)

    def _registration(self, head: Head) -> Registration:
        try:
            return self._registrations[head[NUMBER]]
        except IndexError:
            count = len(self._registrations)
            raise ProtocolError(f"event number {head[NUMBER]}, but only {count} events are registered") from None


def _complete(future: asyncio.Future[Any], result: object) -> None:
    """Completes a future, unless the function that awaits it has stopped waiting."""
    if future.done():
        return
    if isinstance(result, Dropped):
        future.set_exception(result)
    else:
        future.set_result(result)
