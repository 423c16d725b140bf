"""The control socket: one JSON object per line, in both directions."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Callable, Dict, Set

from quickio._output import Output
from quickio._report import abort, exit_child, forked
from quickio._wire import ProtocolError

LINE_BYTES_MAX = 1024 * 1024
# The longest text in a line. JSON escapes turn one character into at most 12 bytes.
TEXT_CHARACTERS_MAX = 64 * 1024

Line = Dict[str, Any]


class Control:
    """The worker's end of the control socket. It reads the hello, answers pings, and sends lines."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._loop = loop
        self._received = b""
        no_flushers: Set[int] = set()
        self.output = Output(sock, loop, no_flushers)

    def read_hello(self) -> Line:
        """Waits for the server's first line, and returns its `hello`."""
        while b"\n" not in self._received:
            if not self._receive():
                raise ProtocolError("the control socket ended before the hello")
        line, _, self._received = self._received.partition(b"\n")
        hello = _parse(line).get("hello")
        if not isinstance(hello, dict):
            raise ProtocolError(f"the first line is not a hello: {line[:100]!r}")
        self._socket.setblocking(False)
        return hello

    def start(self, on_end: Callable[[], object]) -> None:
        """Starts to answer pings, on the loop. `on_end` is called when the server closes the socket."""
        self._loop.add_reader(self._socket, self._on_readable, on_end)
        self._handle_lines()

    def send(self, line: Line) -> None:
        """Sends a line. Any thread may call this."""
        self.output.write(json.dumps(line).encode("ascii") + b"\n")

    def log(self, level: str, text: str) -> None:
        """Sends a line for the server's log. Any thread may call this."""
        self.send({"log": level, "text": text[:TEXT_CHARACTERS_MAX]})

    def _on_readable(self, on_end: Callable[[], object]) -> None:
        if forked:
            exit_child()
        try:
            is_open = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            is_open = False
        if not is_open:
            on_end()
        try:
            self._handle_lines()
        except ProtocolError as error:
            abort(f"protocol error: {error}; this worker exits")

    def _receive(self) -> bool:
        """Reads from the socket. Returns `False` at its end."""
        piece = self._socket.recv(65536)
        self._received += piece
        return bool(piece)

    def _handle_lines(self) -> None:
        if len(self._received) > LINE_BYTES_MAX and b"\n" not in self._received:
            raise ProtocolError(f"a line of the control socket is longer than {LINE_BYTES_MAX} bytes")
        while b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            ping = _parse(line).get("ping")
            if ping is not None:
                self.send({"pong": ping})


def _parse(line: bytes) -> Line:
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ProtocolError(f"a line of the control socket is not a JSON object: {line[:100]!r}")
    return parsed
