"""The frames of the links, as docs/workers.md specifies them: a decoder and an encoder, without I/O."""

from __future__ import annotations

import struct
from typing import List, Tuple

# Types of frames from the server.
EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE = 1, 2, 3, 4, 5, 6, 7
# Types of frames to the server. TIMER is 6 in this direction, too.
ANSWER, BROADCAST, SEND, CLOSE, MOVE, WATCH, CANCEL = 1, 2, 3, 4, 5, 7, 8

WANTS_ANSWER = 1  # a flag of EVENT and REPLY
HAS_INFO = 4  # a flag of EVENT and ON
HAS_OPTIONS = 8  # a flag of ON
REPEATED = 1  # a flag of TIMER
HAS_MESSAGE = 2  # a flag of ANSWER

# Indexes of the fields of a head. SHARD, SLOT and GENERATION identify a client: `head[CLIENT]` is its key.
LENGTH, KIND, FLAGS, CODE, REQUEST, NUMBER, SHARD, SLOT, GENERATION, TEXT, TIME = range(11)
CLIENT = slice(SHARD, TEXT)

Head = Tuple[int, ...]
ClientKey = Tuple[int, ...]
Frame = Tuple[Head, bytes, bytes]

HEAD_BYTES = 40
LENGTH_BYTES = 4
# The server kills a worker that sends a frame of more than 16 MiB. Text and data together stay well below that.
TEXT_BYTES_MAX = 64 * 1024
DATA_BYTES_MAX = 16 * 1024 * 1024 - 2 * TEXT_BYTES_MAX
# Far longer than any event. A head with a greater length is invalid, and no memory is used for its frame.
FRAME_BYTES_MAX = 1 << 30
NUMBER_MAX = (1 << 32) - 1

_HEAD = struct.Struct(">IBBHIIIIIIQ")
_pack = _HEAD.pack
_unpack_from = _HEAD.unpack_from
_NULL_ANSWER = struct.Struct(">8sI28x").pack
_NULL_ANSWER_BEGIN = struct.pack(">IBBH", HEAD_BYTES - LENGTH_BYTES, ANSWER, 0, 200)


class ProtocolError(Exception):
    """The server has broken the protocol. The worker cannot continue."""


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
    """Returns a frame for the server."""
    length = HEAD_BYTES - LENGTH_BYTES + len(text) + len(data)
    head = _pack(length, kind, flags, code, request, number, client[0], client[1], client[2], len(text), time)
    return head + text + data


def null_answer(request: int) -> bytes:
    """Returns an answer of code 200 without data, the most frequent frame of all."""
    return _NULL_ANSWER(_NULL_ANSWER_BEGIN, request)


def data_answer(request: int, data: bytes) -> bytes:
    """Returns an answer of code 200 with data."""
    return _pack(HEAD_BYTES - LENGTH_BYTES + len(data), ANSWER, 0, 200, request, 0, 0, 0, 0, 0, 0) + data


class Decoder:
    """A decoder that turns the byte stream of a link into frames.

    The pieces of an incomplete frame are kept separately until all of them have arrived, so that no byte is copied more
    than twice.
    """

    __slots__ = ("_pieces", "_held", "_needed")

    def __init__(self) -> None:
        self._pieces: List[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, piece: bytes) -> list[Frame]:
        """Returns the frames that this piece completes."""
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
        """Returns whether the stream may end here."""
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
                raise ProtocolError(f"invalid frame length {length}")
            self._needed = LENGTH_BYTES + length


def _decode(piece: bytes, frames: list[Frame]) -> int:
    """Appends the complete frames, and returns the position of the rest."""
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
            raise ProtocolError(f"text of {head[TEXT]} bytes in a frame of length {head[LENGTH]}")
        frames.append((head, piece[text_begin:data_begin], piece[data_begin:stop]))
        position = stop
    return position
