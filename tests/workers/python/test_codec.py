"""The decoder, compared with a naive one."""

import random
import struct

from support import ANSWER, HEAD, Case, frame

from quickio import _wire


class Codec(Case):
    def naive(self, stream):
        frames, position = [], 0
        while len(stream) - position >= 40:
            head = HEAD.unpack(stream[position : position + 40])
            stop = position + 4 + head[0]
            if stop > len(stream):
                break
            text_stop = position + 40 + head[9]
            frames.append((head, stream[position + 40 : text_stop], stream[text_stop:stop]))
            position = stop
        return frames, position == len(stream)

    def stream(self, seed, count=20):
        rng = random.Random(seed)
        sizes = (0, 0, 1, 3, 60, 5000)
        return b"".join(
            frame(
                rng.randrange(256),
                rng.randbytes(rng.choice(sizes)),
                rng.randbytes(rng.choice(sizes)),
                rng.randrange(256),
                rng.randrange(65536),
                *(rng.randrange(1 << 32) for _ in range(2)),
                tuple(rng.randrange(1 << 32) for _ in range(3)),
                rng.randrange(1 << 64),
            )
            for _ in range(count)
        )

    def test_decoding_does_not_depend_on_how_the_stream_is_split(self):
        stream = frame(1, b"/x", b"12", 1, 2, 3, 4, (5, 6, 7), 8) + frame(7) + frame(2, b"", b"null")
        expected, _ = self.naive(stream)
        for first in range(len(stream) + 1):
            for second in range(first, len(stream) + 1):
                decoder = _wire.Decoder()
                frames = []
                for piece in (stream[:first], stream[first:second], stream[second:]):
                    if piece:
                        frames += decoder.feed(piece)
                self.assertEqual(frames, expected, (first, second))
                self.assertTrue(decoder.is_between_frames())

    def test_random_streams_in_random_pieces_match_the_naive_decoder(self):
        for seed in range(200):
            stream, rng = self.stream(seed), random.Random(seed)
            decoder, frames, position = _wire.Decoder(), [], 0
            while position < len(stream):
                size = rng.choice((1, 7, 40, 1000, 20000))
                frames += decoder.feed(stream[position : position + size])
                position += size
                so_far, is_between = self.naive(stream[:position])
                self.assertEqual(len(frames), len(so_far), f"seed {seed}")
                self.assertEqual(decoder.is_between_frames(), is_between, f"seed {seed}")
            self.assertEqual(frames, self.naive(stream)[0], f"seed {seed}")

    def test_rejects_invalid_lengths(self):
        for broken in (
            struct.pack(">I", 35) + bytes(40),
            struct.pack(">I", 0) + bytes(40),
            struct.pack(">I", 35),
            struct.pack(">I", (1 << 32) - 1),
            HEAD.pack(36, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0),
            HEAD.pack(37, 1, 0, 0, 1, 0, 0, 0, 0, (1 << 32) - 1, 0) + b"x",
        ):
            with self.assertRaises(_wire.ProtocolError):
                _wire.Decoder().feed(broken)

    def test_encodes_frames(self):
        self.assertEqual(_wire.null_answer(77), frame(ANSWER, code=200, request=77))
        self.assertEqual(_wire.data_answer(78, b"[]"), frame(ANSWER, data=b"[]", code=200, request=78))
        made = _wire.frame(3, b"/x", b"1", flags=1, code=2, request=3, number=4, client=(5, 6, 7), time=8)
        self.assertEqual(made, frame(3, b"/x", b"1", 1, 2, 3, 4, (5, 6, 7), 8))
