"""What is written to a socket, by any thread, in the order of the calls."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from threading import get_ident
from typing import Dict, List, Set

from quickio._report import break_off, end_child, forked

# What the server has not read. Who writes more waits until half of that is left.
UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024
# The server reads all the time: one that takes nothing for so long has gone astray, and so has this process.
PATIENCE_SECONDS = 10.0
# How often a thread looks that waits for what another one sends.
LOOK_SECONDS = 0.001


class Output:
    """Gathers what is written, and sends it in one piece soon after.

    `write` only appends, and sees to it that somebody flushes: the loop, as soon as it has run what is ready; or the
    thread that writes, where it has said by `flushers` that it will. Whoever flushes takes all that is there.

    No lock is ever waited for: a destructor may write at any moment, in the midst of a flush of its own thread. Only
    who writes more than may wait does, and not for its own thread.
    """

    __slots__ = (
        "_socket",
        "_loop",
        "_loop_thread",
        "_flushers",
        "_pending",
        "_rest",
        "_sender",
        "_promised",
        "_blocked",
        "_unwritten",
        "_closed",
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, flushers: Set[int]) -> None:
        """Called by the loop's thread. `flushers` are the threads that flush by themselves what they write."""
        self._socket = sock
        self._loop = loop
        self._loop_thread = get_ident()
        self._flushers = flushers
        # Always the same list: a thread may be about to append to it while another takes what is there.
        self._pending: List[bytes] = []
        self._rest = memoryview(b"")
        # Who sends: a list with the thread's number, one for each time. `setdefault` is atomic, so it is a lock that
        # knows its owner from the start.
        self._sender: Dict[None, List[int]] = {}
        self._promised = False
        self._blocked = False
        self._unwritten = 0
        self._closed = False

    def write(self, data: bytes) -> None:
        """Sends it behind all that was written before."""
        self._pending.append(data)
        if not self._promised:
            self._promise()
        # Threads may lose a count to each other: it is for a bound, and put right by each send.
        self._unwritten += len(data)
        if self._unwritten > UNWRITTEN_BYTES_MAX:
            self._await_server()

    def flush(self) -> None:
        """Sends what is there, as far as the kernel takes it; the rest follows by itself."""
        # Before it looks what is there: who appends after the look finds no promise.
        self._promised = False
        # Another thread that sends looks once more when it is through.
        while self._pending and not self._blocked and self._becomes_sender():
            try:
                self._send()
            finally:
                self._sender.clear()

    def is_empty(self) -> bool:
        """Whether the kernel has everything."""
        return self._closed or not (self._pending or self._rest or self._blocked)

    def mute(self) -> None:
        """Sends nothing any more. For a forked child, whose sockets and loop are its parent's."""
        self._promised = self._blocked = self._closed = True

    def _promise(self) -> None:
        thread = get_ident()
        if self._blocked or thread in self._flushers:
            return
        self._promised = True
        try:
            if thread == self._loop_thread:
                self._loop.call_soon(self.flush)
            else:
                self._loop.call_soon_threadsafe(self.flush)
        except RuntimeError:
            pass  # the loop has ended, and with it everybody who could care

    def _becomes_sender(self) -> bool:
        mine = [get_ident()]
        return self._sender.setdefault(None, mine) is mine

    def _send(self) -> int:
        """Sends once; how much the kernel took. Called by the sender, as what follows is."""
        data = self._rest
        if not data:
            count = len(self._pending)
            data = memoryview(b"".join(self._pending[:count]))
            del self._pending[:count]
        sent = 0
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._close()
            return 0
        self._rest = data[sent:]
        self._unwritten = len(self._rest) + sum(map(len, self._pending))
        if self._rest and not self._blocked:
            self._block()
        return sent

    def _block(self) -> None:
        self._blocked = True
        if get_ident() == self._loop_thread:
            self._await_room()
        else:
            self._loop.call_soon_threadsafe(self._await_room)

    def _await_room(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._socket, self._continue)

    def _continue(self) -> None:
        """The kernel has room again. It is called as long as that is so."""
        if forked:
            end_child()  # the loop's list of sockets is its parent's, too
        if not self._becomes_sender():
            return  # whoever is at it takes the room
        try:
            if self._rest:
                self._send()
            if not self._rest:
                self._loop.remove_writer(self._socket)
                self._blocked = False
        finally:
            self._sender.clear()
        self.flush()

    # More than may wait.

    def _await_server(self) -> None:
        """Waits until the server has read. Any thread may do so, also the loop's: no function gives way to others."""
        while self._unwritten > UNWRITTEN_BYTES_MAX and not self._closed:
            if self._becomes_sender():
                try:
                    self._send_half()
                finally:
                    self._sender.clear()
            elif self._sender.get(None) == [get_ident()]:
                return  # a destructor, in the midst of that
            else:
                time.sleep(LOOK_SECONDS)
        if self._closed:
            self._pending.clear()
            self._unwritten = 0

    def _send_half(self) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        while self._unwritten > UNWRITTEN_BYTES_MAX // 2 and not self._closed:
            if not self._send() and not self._closed and not room.poll(PATIENCE_SECONDS * 1000):
                break_off(f"the server has not read {self._unwritten} bytes, and more must not wait")

    def _close(self) -> None:
        """The server has closed its side. That it has gone, or means to stop this process, is said elsewhere."""
        self._closed = True
        self._rest = memoryview(b"")
        self._pending.clear()
        self._unwritten = 0
