"""The control socket: JSON, one object a line."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Callable, Dict, Set

from quickio._output import Output
from quickio._report import break_off, end_child, forked
from quickio._wire import ProtocolError

LINE_BYTES_MAX = 1024 * 1024
# Of texts in lines. Each of their characters takes at most 12 bytes of the line.
TEXT_CHARACTERS_MAX = 64 * 1024

Line = Dict[str, Any]


class Control:
    """Says hello, answers pings, and tells what there is to be told."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._loop = loop
        self._received = b""
        no_flushers: Set[int] = set()
        self.output = Output(sock, loop, no_flushers)

    def hello(self) -> Line:
        """Waits for the server's first line."""
        while b"\n" not in self._received:
            if not self._receive():
                raise ProtocolError("the control socket has ended before hello")
        line, _, self._received = self._received.partition(b"\n")
        hello = _parse(line).get("hello")
        if not isinstance(hello, dict):
            raise ProtocolError(f"the first line is no hello: {line[:100]!r}")
        self._socket.setblocking(False)
        return hello

    def serve(self, end: Callable[[], object]) -> None:
        """Answers pings from now on, from the loop. `end` is called when the server has gone."""
        self._loop.add_reader(self._socket, self._on_readable, end)
        self._answer_lines()

    def send(self, line: Line) -> None:
        """Any thread may call it."""
        self.output.write(json.dumps(line).encode("ascii") + b"\n")

    def log(self, level: str, text: str) -> None:
        """A line for the server's log. Any thread may call it."""
        self.send({"log": level, "text": text[:TEXT_CHARACTERS_MAX]})

    def _on_readable(self, end: Callable[[], object]) -> None:
        if forked:
            end_child()
        try:
            is_there = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            is_there = False
        if not is_there:
            end()
        try:
            self._answer_lines()
        except ProtocolError as error:
            break_off(str(error))

    def _receive(self) -> bool:
        piece = self._socket.recv(65536)
        self._received += piece
        return bool(piece)

    def _answer_lines(self) -> None:
        if len(self._received) > LINE_BYTES_MAX and b"\n" not in self._received:
            raise ProtocolError("a line of the control socket is too long")
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
        raise ProtocolError(f"a line of the control socket is no JSON object: {line[:100]!r}")
    return parsed
