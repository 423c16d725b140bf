"""Buffered output to a socket. Any thread may write; data is sent in the order of the calls."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from threading import get_ident
from typing import Dict, List, Set

from quickio._report import abort, exit_child, forked

# The most bytes that may wait for the server to read them. A thread that writes more blocks until half are left.
UNSENT_BYTES_MAX = 64 * 1024 * 1024
# The server reads continuously. If it reads nothing for this long, it has failed, and this process exits.
STALL_TIMEOUT_SECONDS = 10.0
# How often a blocked thread checks whether another thread has sent enough.
POLL_SECONDS = 0.001


class Output:
    """Collects what is written, and sends it in one system call soon after.

    `write` only appends to a list and ensures that a flush follows. The loop flushes after it has run all ready
    callbacks; a thread listed in `flushers` flushes what it writes itself. Each flush sends everything collected.

    No method waits for a lock, because a destructor may write at any moment, even during a flush on its own thread.
    Only a thread that exceeds `UNSENT_BYTES_MAX` waits, and never for itself.
    """

    __slots__ = (
        "_socket",
        "_loop",
        "_loop_thread",
        "_flushers",
        "_pending",
        "_partial",
        "_sender",
        "_is_flush_scheduled",
        "_is_blocked",
        "_unsent_bytes",
        "_is_closed",
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, flushers: Set[int]) -> None:
        """Must be called on the loop's thread. `flushers` are the ids of the threads that flush what they write."""
        self._socket = sock
        self._loop = loop
        self._loop_thread = get_ident()
        self._flushers = flushers
        # The list is never replaced: a thread may be about to append while another one empties it.
        self._pending: List[bytes] = []
        # The unsent rest of a piece that the kernel accepted only in part.
        self._partial = memoryview(b"")
        # A lock that knows its owner from the start: the sender stores a new list with its thread id. `setdefault` is
        # atomic, so one thread succeeds.
        self._sender: Dict[None, List[int]] = {}
        self._is_flush_scheduled = False
        # Set while the loop waits for the socket to become writable.
        self._is_blocked = False
        self._unsent_bytes = 0
        self._is_closed = False

    def write(self, data: bytes) -> None:
        """Queues data behind everything written before."""
        self._pending.append(data)
        if not self._is_flush_scheduled:
            self._schedule_flush()
        # Not atomic, so concurrent writers may lose an update. The count is only for the limit, and each send corrects
        # it.
        self._unsent_bytes += len(data)
        if self._unsent_bytes > UNSENT_BYTES_MAX:
            self._wait_for_server()

    def flush(self) -> None:
        """Sends as much as the kernel accepts. The loop sends the rest later."""
        # Cleared before the list is examined: a thread that appends after that schedules another flush.
        self._is_flush_scheduled = False
        # If another thread is sending, it examines the list again when it has finished.
        while self._pending and not self._is_blocked and self._try_become_sender():
            try:
                self._send()
            finally:
                self._sender.clear()

    def is_empty(self) -> bool:
        """Returns whether the kernel has accepted everything."""
        return self._is_closed or not (self._pending or self._partial or self._is_blocked)

    def disable(self) -> None:
        """Stops all sending. For a forked child, whose sockets and loop belong to its parent."""
        self._is_flush_scheduled = self._is_blocked = self._is_closed = True

    def _schedule_flush(self) -> None:
        thread = get_ident()
        if self._is_blocked or thread in self._flushers:
            return
        self._is_flush_scheduled = True
        try:
            if thread == self._loop_thread:
                self._loop.call_soon(self.flush)
            else:
                self._loop.call_soon_threadsafe(self.flush)
        except RuntimeError:
            pass  # the loop has been closed, and with it the connection

    def _try_become_sender(self) -> bool:
        mine = [get_ident()]
        return self._sender.setdefault(None, mine) is mine

    # The methods below are for the sender.

    def _send(self) -> int:
        """Sends once. Returns the number of bytes that the kernel accepted."""
        data = self._partial
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
        self._partial = data[sent:]
        self._unsent_bytes = len(self._partial) + sum(map(len, self._pending))
        if self._partial and not self._is_blocked:
            self._block()
        return sent

    def _block(self) -> None:
        self._is_blocked = True
        if get_ident() == self._loop_thread:
            self._watch_writable()
        else:
            self._loop.call_soon_threadsafe(self._watch_writable)

    def _watch_writable(self) -> None:
        if not self._is_closed:
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        """Sends the rest. The loop calls this as long as the kernel has room."""
        if forked:
            exit_child()  # the loop watches the parent's sockets
        if not self._try_become_sender():
            return  # another thread is sending and uses the room
        try:
            if self._partial:
                self._send()
            if not self._partial:
                self._loop.remove_writer(self._socket)
                self._is_blocked = False
        finally:
            self._sender.clear()
        self.flush()

    # The limit.

    def _wait_for_server(self) -> None:
        """Blocks until the server has read enough. This includes the loop's thread: no function yields to others."""
        while self._unsent_bytes > UNSENT_BYTES_MAX and not self._is_closed:
            if self._try_become_sender():
                try:
                    self._send_half()
                finally:
                    self._sender.clear()
            elif self._sender.get(None) == [get_ident()]:
                return  # a destructor that runs while its own thread is sending
            else:
                time.sleep(POLL_SECONDS)
        if self._is_closed:
            self._pending.clear()
            self._unsent_bytes = 0

    def _send_half(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self._unsent_bytes > UNSENT_BYTES_MAX // 2 and not self._is_closed:
            if not self._send() and not self._is_closed and not poll.poll(STALL_TIMEOUT_SECONDS * 1000):
                waited = f"the server has read nothing for {STALL_TIMEOUT_SECONDS:g} s"
                abort(f"{waited}, and {self._unsent_bytes} bytes of output are waiting; this worker exits")

    def _close(self) -> None:
        """Discards all output. Called when the server has closed its side, which the links' readers handle."""
        self._is_closed = True
        self._partial = memoryview(b"")
        self._pending.clear()
        self._unsent_bytes = 0
