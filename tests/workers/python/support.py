"""A fake server that starts a worker with a script, and speaks the protocol of docs/workers.md with it.

    python3 -m unittest discover -s tests/workers/python -p test_events.py

The frames are made and read by the few lines of this file, not by the library. No test depends on speed: every wait has
a deadline.
"""

import json
import os
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.abspath(os.path.join(HERE, "../../../src/app/worker/python"))
sys.path.insert(0, LIBRARY)
sys.dont_write_bytecode = True

DEADLINE_SECONDS = 30  # the longest time that a test waits for anything

HEAD = struct.Struct(">IBBHIIIIIIQ")
EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE = 1, 2, 3, 4, 5, 6, 7
ANSWER, BROADCAST, SEND, CLOSE, MOVE, SET_TIMER, WATCH, CANCEL = 1, 2, 3, 4, 5, 6, 7, 8

ADA, BOB = (0, 5, 7), (1, 6, 8)

# Renumbers inherited descriptors from 3 on, and executes the worker.
EXEC_WORKER = """
import os, sys
count = int(sys.argv[1])
high = [os.dup2(int(fd), 200 + place) for place, fd in enumerate(sys.argv[2:2 + count])]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
    os.close(fd)
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


def frame(kind, text=b"", data=b"", flags=0, code=0, request=0, number=0, client=(0, 0, 0), time=0):
    """Returns a frame. The parameters have the order of the fields in docs/workers.md."""
    length = 36 + len(text) + len(data)
    return HEAD.pack(length, kind, flags, code, request, number, *client, len(text), time) + text + data


def event(request, number=0, client=ADA, data=b"", text=b"", flags=1, time=0):
    return frame(EVENT, text, data, flags, request=request, number=number, client=client, time=time)


def answer(request, data=b"", code=200, number=0, message=None):
    """Returns an ANSWER frame, as the library must send it."""
    flags = 0 if message is None else 2
    return frame(ANSWER, (message or "").encode(), data, flags, code=code, request=request, number=number)


class Worker:
    """A worker process with a script, and the server's ends of its sockets."""

    def __init__(self, text, links=2, files=None, **hello):
        self.folder = tempfile.TemporaryDirectory()
        for name, text in {"script.py": text, **(files or {})}.items():
            path = os.path.join(self.folder.name, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
        self.script = os.path.join(self.folder.name, "script.py")
        pairs = [socket.socketpair() for _ in range(1 + links)]
        self.control, *self.links = [ours for ours, _ in pairs]
        for ours, _ in pairs:
            ours.settimeout(DEADLINE_SECONDS)
        self.process = self._start([theirs for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        self.lines = self.control.makefile("rb")
        # The errors that the worker has logged, and the other lines of the control socket.
        self.logged, self.received_lines = [], queue.Queue()
        threading.Thread(target=self._read_lines, daemon=True).start()
        self.received = [b"" for _ in self.links]
        line = {"version": 1, "app": "script", "instance": 0, "instances": 1, "links": list(range(4, 4 + links))}
        line.update({"script": self.script, "settings": {}, "test": False, **hello})
        self.send_line({"hello": line})

    def _start(self, sockets):
        self.errors = open(os.path.join(self.folder.name, "stderr"), "w+b")
        fds = [str(sock.fileno()) for sock in sockets]
        command = [sys.executable, "-I", "-S", "-c", EXEC_WORKER, str(len(fds)), *fds]
        command += [sys.executable, "-u", "-m", "quickio"]
        environment = {**os.environ, "PYTHONPATH": LIBRARY, "QUICKIO_WORKER": "3", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            cwd="/",
            pass_fds=[sock.fileno() for sock in sockets],
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for sock in [self.control, *self.links]:
            sock.close()
        self.errors.close()
        self.folder.cleanup()

    # The control socket.

    def send_line(self, line):
        self.control.sendall(json.dumps(line).encode() + b"\n")

    def _read_lines(self):
        try:
            for raw in self.lines:
                line = json.loads(raw)
                if line.get("log") == "error":
                    self.logged.append(line["text"])
                else:
                    self.received_lines.put(line)
        except (OSError, ValueError):
            pass  # the test has ended
        self.received_lines.put(None)

    def line(self):
        line = self.received_lines.get(timeout=DEADLINE_SECONDS)
        if line is None:
            raise EOFError(self.log())
        return line

    def ready(self):
        return self.line()["ready"]

    def ping(self):
        """Waits until the worker's loop has read everything sent before."""
        self.send_line({"ping": 1})
        assert self.line() == {"pong": 1}

    # The links.

    def send(self, *frames, link=0):
        self.links[link].sendall(b"".join(frames))

    def next(self, link=0):
        """Returns the next frame of a link."""
        while True:
            received = self.received[link]
            if len(received) >= 4:
                length = 4 + int.from_bytes(received[:4], "big")
                if len(received) >= length:
                    self.received[link] = received[length:]
                    return received[:length]
            piece = self.links[link].recv(1 << 20)
            if not piece:
                raise EOFError(self.log())
            self.received[link] += piece

    def take(self, count, link=0):
        return [self.next(link) for _ in range(count)]

    def ask(self, request, *args, link=0, **more):
        """Sends an event, and returns the next frame."""
        self.send(event(request, *args, **more), link=link)
        return self.next(link)

    def end_links(self):
        for sock in self.links:
            sock.shutdown(socket.SHUT_WR)

    # The process.

    def exit_code(self):
        return self.process.wait(DEADLINE_SECONDS)

    def log(self):
        self.errors.flush()
        with open(self.errors.name, encoding="utf-8") as file:
            return "\n".join([file.read(), *self.logged])

    def wait_for_log(self, text):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.log():
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log()}"
            time.sleep(0.005)
        return self.log()


class Case(unittest.TestCase):
    """A test case that starts workers, and stops them at its end."""

    maxDiff = None

    def worker(self, text, **options):
        """Starts a worker, and waits until it is ready."""
        worker = self.start_worker(text, **options)
        self.manifest = worker.ready()
        return worker

    def start_worker(self, text, **options):
        worker = Worker(text, **options)
        self.addCleanup(worker.__exit__)
        return worker

    def assert_log(self, worker, *texts):
        """Waits until the worker has printed the first text, and checks for the others."""
        log = worker.wait_for_log(texts[0])
        for text in texts:
            self.assertIn(text, log)
