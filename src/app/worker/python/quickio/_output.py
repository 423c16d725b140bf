"""What is written to a socket, by any thread, in the order of the calls."""

from __future__ import annotations

import asyncio
import socket
from threading import Lock, get_ident
from typing import List, Set

from quickio._report import break_off

# What the server has not read. It reads all the time: one that does not has gone astray, and so has this process.
UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024


class Output:
    """Gathers what is written, and sends it in one piece soon after.

    `write` only appends, and sees to it that somebody flushes: the loop, as soon as it has run what is ready; or the
    thread that writes, where it has said by `flushers` that it will. Whoever flushes takes all that is there.

    No lock is ever waited for: a destructor may write at any moment, in the midst of a flush of its own thread.
    """

    __slots__ = (
        "_socket",
        "_loop",
        "_loop_thread",
        "_flushers",
        "_pending",
        "_rest",
        "_sending",
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
        self._sending = Lock()
        self._promised = False
        self._blocked = False
        self._unwritten = 0
        self._closed = False

    def write(self, data: bytes) -> None:
        """Sends it behind all that was written before."""
        self._pending.append(data)
        if not self._promised:
            self._promise(len(data))

    def flush(self) -> None:
        """Sends what is there, as far as the kernel takes it; the rest follows by itself."""
        # Before it looks what is there: who appends after the look finds no promise.
        self._promised = False
        # Another thread that sends looks once more when it has let go of the lock.
        while self._pending and not self._blocked and self._sending.acquire(False):
            try:
                self._send()
            finally:
                self._sending.release()

    def is_empty(self) -> bool:
        """Whether the kernel has everything."""
        return self._closed or not (self._pending or self._rest or self._blocked)

    def mute(self) -> None:
        """Sends nothing any more. For a forked child, whose sockets and loop are its parent's."""
        self._promised = self._blocked = self._closed = True

    def _promise(self, size: int) -> None:
        if self._blocked:
            # Threads may lose a count to each other: it is for a bound, and put right by each send.
            self._unwritten += size
            self._check_bound()
            return
        thread = get_ident()
        if thread in self._flushers:
            return
        self._promised = True
        try:
            if thread == self._loop_thread:
                self._loop.call_soon(self.flush)
            else:
                self._loop.call_soon_threadsafe(self.flush)
        except RuntimeError:
            pass  # the loop has ended, and with it everybody who could care

    def _send(self) -> None:
        data = self._rest
        if not data:
            count = len(self._pending)
            data = memoryview(b"".join(self._pending[:count]))
            del self._pending[:count]
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._close()
            return
        self._rest = data[sent:]
        if self._rest:
            self._block()

    def _block(self) -> None:
        self._unwritten = len(self._rest) + sum(map(len, self._pending))
        self._check_bound()
        self._blocked = True
        if get_ident() == self._loop_thread:
            self._await_room()
        else:
            self._loop.call_soon_threadsafe(self._await_room)

    def _check_bound(self) -> None:
        if self._unwritten > UNWRITTEN_BYTES_MAX:
            break_off(f"the server has not read {self._unwritten} bytes, and more must not wait")

    def _await_room(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._socket, self._continue)

    def _continue(self) -> None:
        """The kernel has room again."""
        self._loop.remove_writer(self._socket)
        if self._rest:
            with self._sending:
                self._send()
            if self._rest:
                return  # it waits for room again
        self._blocked = False
        self.flush()

    def _close(self) -> None:
        """The server has closed its side. That it has gone, or means to stop this process, is said elsewhere."""
        self._closed = True
        self._rest = memoryview(b"")
        self._pending.clear()

