"""The frames of the links, as docs/workers.md has them: bytes in, frames out, and the other way round."""

from __future__ import annotations

import struct
from typing import List, Tuple

# From the server.
EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE = 1, 2, 3, 4, 5, 6, 7
# To the server. TIMER is 6 here, too.
ANSWER, BROADCAST, SEND, CLOSE, MOVE, WATCH, CANCEL = 1, 2, 3, 4, 5, 7, 8

WANTS_ANSWER = 1  # a flag of EVENT and REPLY
REPEATED = 1  # a flag of TIMER
HAS_MESSAGE = 2  # a flag of ANSWER

# Where the fields of a head are. Those from SHARD to GENERATION name a client: `head[CLIENT]` is its key.
LENGTH, KIND, FLAGS, CODE, REQUEST, NUMBER, SHARD, SLOT, GENERATION, TEXT, TIME = range(11)
CLIENT = slice(SHARD, TEXT)

Head = Tuple[int, ...]
ClientKey = Tuple[int, ...]
Frame = Tuple[Head, bytes, bytes]

HEAD_BYTES = 40
LENGTH_BYTES = 4
# The server kills a worker that sends a frame of more than 16 MiB: text and data keep well below it, together.
TEXT_BYTES_MAX = 64 * 1024
DATA_BYTES_MAX = 16 * 1024 * 1024 - 2 * TEXT_BYTES_MAX
# No event is nearly as long. A head that says so is none, and nothing must be gathered for it.
FRAME_BYTES_MAX = 1 << 30
NUMBER_MAX = (1 << 32) - 1

_HEAD = struct.Struct(">IBBHIIIIIIQ")
_pack = _HEAD.pack
_unpack_from = _HEAD.unpack_from
_NULL_ANSWER = struct.Struct(">8sI28x").pack
_NULL_ANSWER_BEGIN = struct.pack(">IBBH", HEAD_BYTES - LENGTH_BYTES, ANSWER, 0, 200)


class ProtocolError(Exception):
    """The server sent what it must not. There is no way to go on."""


def frame(
    kind: int,
    text: bytes = b"",
    data: bytes = b"",
    *,
    flags: int = 0,
    code: int = 0,
    request: int = 0,
    number: int = 0,
    client: ClientKey = (0, 0, 0),
    time: int = 0,
) -> bytes:
    """A frame for the server."""
    length = HEAD_BYTES - LENGTH_BYTES + len(text) + len(data)
    head = _pack(length, kind, flags, code, request, number, client[0], client[1], client[2], len(text), time)
    return head + text + data


def null_answer(request: int) -> bytes:
    """The answer that says 200 and nothing else: the most frequent frame of all."""
    return _NULL_ANSWER(_NULL_ANSWER_BEGIN, request)


def data_answer(request: int, data: bytes) -> bytes:
    """The answer that says 200 and has data."""
    return _pack(HEAD_BYTES - LENGTH_BYTES + len(data), ANSWER, 0, 200, request, 0, 0, 0, 0, 0, 0) + data


class Decoder:
    """Finds the frames in what a link brings, piece by piece.

    What is incomplete waits in pieces until its length is there, so that no byte is copied more than twice.
    """

    __slots__ = ("_pieces", "_held", "_needed")

    def __init__(self) -> None:
        self._pieces: List[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are complete with this piece."""
        if self._held:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held < self._needed:
                return []
            piece = b"".join(self._pieces)
            self._pieces.clear()
        frames: list[Frame] = []
        self._keep(piece, _decode(piece, frames))
        return frames

    def is_between_frames(self) -> bool:
        """Whether the stream may end here."""
        return self._held == 0

    def _keep(self, piece: bytes, position: int) -> None:
        self._held = len(piece) - position
        if not self._held:
            return
        self._pieces.append(piece[position:])
        self._needed = HEAD_BYTES
        if self._held >= LENGTH_BYTES:
            length = int.from_bytes(piece[position : position + LENGTH_BYTES], "big")
            if not HEAD_BYTES - LENGTH_BYTES <= length <= FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes")
            self._needed = LENGTH_BYTES + length


def _decode(piece: bytes, frames: list[Frame]) -> int:
    """Appends the complete frames; answers where the rest begins."""
    position, end = 0, len(piece)
    last_head = end - HEAD_BYTES
    while position <= last_head:
        head: Head = _unpack_from(piece, position)
        text_begin = position + HEAD_BYTES
        data_begin = text_begin + head[TEXT]
        stop = position + LENGTH_BYTES + head[LENGTH]
        if stop > end:
            break
        if data_begin > stop:
            raise ProtocolError(f"a text of {head[TEXT]} bytes in a frame of {head[LENGTH]}")
        frames.append((head, piece[text_begin:data_begin], piece[data_begin:stop]))
        position = stop
    return position
