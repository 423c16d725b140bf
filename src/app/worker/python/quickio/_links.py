"""Links: the connections to the server's shards, and the requests and callbacks open on them."""

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
    """A callback offered to a client: a function for its reply, or a future that waits for the reply."""

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
        # The client whose jobs `dropped` is queued behind.
        self.client = client


class Link:
    """The connection to one shard of the server.

    Any thread may call the methods that write. Requests, callbacks and clients are tracked with atomic operations of
    dictionaries, which need no lock.
    """

    __slots__ = (
        "index",
        "socket",
        "output",
        "write",
        "decoder",
        "pending_requests",
        "callbacks",
        "watched",
        "ended",
        "on_callback_dropped",
        "_numbers",
    )

    def __init__(self, index: int, sock: socket.socket, output: Output) -> None:
        self.index = index
        self.socket = sock
        self.output = output
        self.write = output.write
        self.decoder = Decoder()
        # Requests that are not yet answered, with the task that handles each: the loop does not keep its tasks alive.
        self.pending_requests: Dict[int, Optional[asyncio.Task[None]]] = {}
        self.callbacks: Dict[int, Callback] = {}
        # Clients whose data is in use. Each entry is the only object for its client until the frame GONE arrives.
        self.watched: Dict[ClientKey, Client] = {}
        # Set when the server has closed its side: no more frames arrive.
        self.ended = False
        # Called for callbacks that `end` drops, and for those that are offered after it. Any thread may call it.
        self.on_callback_dropped: Callable[[Callback], None] = lambda _: None
        self._numbers = itertools.count(1)

    # Answers. Each method ends its request; the caller ensures that it is called once. If no valid frame can be made,
    # the method raises before it ends the request, which can then be answered in another way.

    def answer_null(self, request: int) -> None:
        """Answers with code 200 and no data."""
        raw = null_answer(request)
        self.pending_requests.pop(request, None)
        self.write(raw)

    def answer(self, request: int, data: bytes, callback: Optional[Callback] = None) -> None:
        """Answers with code 200 and data, and optionally offers a callback."""
        if callback is None:
            raw = data_answer(request, data)
            self.pending_requests.pop(request, None)
            self.write(raw)
        else:
            number = self._unused_number()
            raw = frame(ANSWER, data=data, code=200, request=request, number=number)
            self.pending_requests.pop(request, None)
            self._offer(callback, number, raw)

    def answer_code(self, request: int, code: int, text: Optional[bytes] = None, data: bytes = b"") -> None:
        """Answers with any other code. Code 0 ends the request without an answer to the client."""
        flags = 0 if text is None else HAS_MESSAGE
        raw = frame(ANSWER, text or b"", data, flags=flags, code=code, request=request)
        self.pending_requests.pop(request, None)
        self.write(raw)

    # Other frames.

    def send(self, client: ClientKey, path: bytes, data: bytes, callback: Optional[Callback] = None) -> None:
        """Sends an event to a client, and optionally offers a callback."""
        if callback is None:
            self.write(frame(SEND, path, data, client=client))
        else:
            number = self._unused_number()
            self._offer(callback, number, frame(SEND, path, data, number=number, client=client))

    def watch(self, client: ClientKey) -> None:
        """Asks the server for a GONE frame when the client disconnects."""
        self.write(frame(_wire.WATCH, client=client))

    def end(self) -> None:
        """Drops all callbacks. Called when the server has closed its side, since no reply can arrive."""
        self.ended = True
        for number in list(self.callbacks):
            self._drop(number)

    def _offer(self, callback: Callback, number: int, raw: bytes) -> None:
        # Stored before the frame is written: the reply may arrive at once.
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
            self.on_callback_dropped(callback)
