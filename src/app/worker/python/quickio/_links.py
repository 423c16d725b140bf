"""A link: the way to one shard of the server, and what is open on it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from quickio import _wire
from quickio._output import Output
from quickio._wire import ANSWER, HAS_MESSAGE, NUMBER_MAX, SEND, ClientKey, Decoder, data_answer, frame, null_answer

if TYPE_CHECKING:
    from quickio._client import Client


class Callback:
    """What was offered to a client: a function for its reply, or a future that waits for it."""

    __slots__ = ("function", "dropped", "future", "client")

    def __init__(
        self,
        function: Optional[Callable[..., object]] = None,
        dropped: Optional[Callable[[], object]] = None,
        future: Optional[asyncio.Future[Any]] = None,
        client: Optional[ClientKey] = None,
    ) -> None:
        self.function = function
        self.dropped = dropped
        self.future = future
        # In whose turn `dropped` runs.
        self.client = client


class Link:
    """One link. What writes may be called by any thread; requests, callbacks and clients are told apart by atomic
    operations of dictionaries, so that there is no lock.
    """

    __slots__ = (
        "index",
        "socket",
        "output",
        "write",
        "decoder",
        "under_way",
        "callbacks",
        "watched",
        "ended",
        "on_unanswerable",
        "_numbers",
    )

    def __init__(self, index: int, sock: socket.socket, output: Output) -> None:
        self.index = index
        self.socket = sock
        self.output = output
        self.write = output.write
        self.decoder = Decoder()
        # Requests without an answer, with the task that finds it: the loop itself does not keep its tasks alive.
        self.under_way: Dict[int, Optional[asyncio.Task[None]]] = {}
        self.callbacks: Dict[int, Callback] = {}
        # Clients whose data is in use. Each is the one object for its client until GONE.
        self.watched: Dict[ClientKey, Client] = {}
        # No more will come over it.
        self.ended = False
        # What is told of callbacks that are dropped by `end`, and of those that are offered behind it; by any thread.
        self.on_unanswerable: Callable[[Callback], None] = lambda _: None
        self._numbers = itertools.count(1)

    # Answers. Each ends its request: who calls sees to it that there is but one. Where there can be no such frame it
    # raises before that, and the request can still be answered otherwise.

    def answer_null(self, request: int) -> None:
        """200, and nothing else."""
        raw = null_answer(request)
        self.under_way.pop(request, None)
        self.write(raw)

    def answer(self, request: int, data: bytes, callback: Optional[Callback] = None) -> None:
        """200, with data, and a callback that is offered."""
        if callback is None:
            raw = data_answer(request, data)
            self.under_way.pop(request, None)
            self.write(raw)
        else:
            number = self._unused_number()
            raw = frame(ANSWER, data=data, code=200, request=request, number=number)
            self.under_way.pop(request, None)
            self._offer(callback, number, raw)

    def answer_code(self, request: int, code: int, text: Optional[bytes] = None, data: bytes = b"") -> None:
        """Any other code. 0 is no answer at all."""
        flags = 0 if text is None else HAS_MESSAGE
        raw = frame(ANSWER, text or b"", data, flags=flags, code=code, request=request)
        self.under_way.pop(request, None)
        self.write(raw)

    # Everything else.

    def send(self, client: ClientKey, path: bytes, data: bytes, callback: Optional[Callback] = None) -> None:
        """An event for a client."""
        if callback is None:
            self.write(frame(SEND, path, data, client=client))
        else:
            number = self._unused_number()
            self._offer(callback, number, frame(SEND, path, data, number=number, client=client))

    def watch(self, client: ClientKey) -> None:
        """Has the server say when the client has gone."""
        self.write(frame(_wire.WATCH, client=client))

    def end(self) -> None:
        """No more comes over it, so no callback will ever be answered."""
        self.ended = True
        for number in list(self.callbacks):
            self._drop(number)

    def _offer(self, callback: Callback, number: int, raw: bytes) -> None:
        # Before the frame is written: its reply may come at once.
        self.callbacks[number] = callback
        self.write(raw)
        if self.ended:
            self._drop(number)

    def _unused_number(self) -> int:
        while True:
            number = next(self._numbers) & NUMBER_MAX
            if number and number not in self.callbacks:
                return number

    def _drop(self, number: int) -> None:
        callback = self.callbacks.pop(number, None)
        if callback is not None:
            self.on_unanswerable(callback)
