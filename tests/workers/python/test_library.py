"""The worker library for Python against a server that is played here, frame by frame.

    python3 -m unittest tests/workers/python/test_library.py

Each test starts a worker with a script of its own, on socket pairs. The frames are made and read by this file's own
few lines, not by the library's. Nothing here depends on being quick: every wait has a deadline.
"""

import ast
import collections
import glob
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.abspath(os.path.join(HERE, "../../../src/app/worker/python"))
sys.path.insert(0, LIBRARY)
sys.dont_write_bytecode = True

import quickio  # noqa: E402
from quickio import _client, _pool, _wire  # noqa: E402

SECONDS = 30  # how long anything is waited for

HEAD = struct.Struct(">IBBHIIIIIIQ")
EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE = 1, 2, 3, 4, 5, 6, 7
ANSWER, BROADCAST, SEND, CLOSE, MOVE, SET_TIMER, WATCH, CANCEL = 1, 2, 3, 4, 5, 6, 7, 8

ADA, BOB = (0, 5, 7), (1, 6, 8)

# Gives descriptors the numbers 3 and up, and becomes the worker.
BECOME = """
import os, sys
count = int(sys.argv[1])
high = [os.dup2(int(fd), 200 + place) for place, fd in enumerate(sys.argv[2:2 + count])]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
    os.close(fd)
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


def frame(kind, text=b"", data=b"", flags=0, code=0, request=0, number=0, client=(0, 0, 0), time=0):
    """A frame, in the order in which docs/workers.md has its fields."""
    length = 36 + len(text) + len(data)
    return HEAD.pack(length, kind, flags, code, request, number, *client, len(text), time) + text + data


def event(request, number=0, client=ADA, data=b"", text=b"", flags=1, time=0):
    return frame(EVENT, text, data, flags, request=request, number=number, client=client, time=time)


def answer(request, data=b"", code=200, number=0, message=None):
    """What the library is to answer."""
    flags = 0 if message is None else 2
    return frame(ANSWER, (message or "").encode(), data, flags, code=code, request=request, number=number)


class Worker:
    """A worker with a script, and the server's ends of its sockets."""

    def __init__(self, text, links=2, files=None, **hello):
        self.folder = tempfile.TemporaryDirectory()
        for name, text in {"script.py": text, **(files or {})}.items():
            with open(os.path.join(self.folder.name, name), "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
        self.script = os.path.join(self.folder.name, "script.py")
        pairs = [socket.socketpair() for _ in range(1 + links)]
        self.control, *self.links = [ours for ours, _ in pairs]
        for ours, _ in pairs:
            ours.settimeout(SECONDS)
        self.process = self._start([theirs for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        self.lines = self.control.makefile("rb")
        self.received = [b"" for _ in self.links]
        said = {"version": 1, "app": "script", "instance": 0, "instances": 1, "links": list(range(4, 4 + links))}
        said.update({"script": self.script, "settings": {}, "test": False, **hello})
        self.say({"hello": said})

    def _start(self, sockets):
        self.errors = open(os.path.join(self.folder.name, "stderr"), "w+b")
        fds = [str(sock.fileno()) for sock in sockets]
        command = [sys.executable, "-I", "-S", "-c", BECOME, str(len(fds)), *fds]
        command += [sys.executable, "-u", "-m", "quickio"]
        environment = {**os.environ, "PYTHONPATH": LIBRARY, "QUICKIO_WORKER": "3", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=self.errors,
            cwd="/",
            pass_fds=[sock.fileno() for sock in sockets],
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.lines.close()
        for sock in [self.control, *self.links]:
            sock.close()
        self.errors.close()
        self.folder.cleanup()

    # The control socket.

    def say(self, line):
        self.control.sendall(json.dumps(line).encode() + b"\n")

    def line(self):
        return json.loads(self.lines.readline())

    def ready(self):
        return self.line()["ready"]

    def ping(self):
        """The worker has been at its loop behind all that it was sent before."""
        self.say({"ping": 1})
        assert self.line() == {"pong": 1}

    # The links.

    def send(self, *frames, link=0):
        self.links[link].sendall(b"".join(frames))

    def next(self, link=0):
        """The next frame of a link, as bytes."""
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
        """Sends an event; its answer."""
        self.send(event(request, *args, **more), link=link)
        return self.next(link)

    def end_links(self):
        for sock in self.links:
            sock.shutdown(socket.SHUT_WR)

    # The process.

    def exit_code(self):
        return self.process.wait(SECONDS)

    def log(self):
        self.errors.flush()
        with open(self.errors.name, encoding="utf-8") as file:
            return file.read()

    def wait_for_log(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.log():
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log()}"
            time.sleep(0.005)
        return self.log()


class Case(unittest.TestCase):
    maxDiff = None

    def worker(self, text, **options):
        """A worker that has said that it is ready."""
        worker = self.starting(text, **options)
        self.said = worker.ready()
        return worker

    def starting(self, text, **options):
        worker = Worker(text, **options)
        self.addCleanup(worker.__exit__)
        return worker

    def assertLog(self, worker, *texts):
        log = worker.wait_for_log(texts[0])
        for text in texts:
            self.assertIn(text, log)


class Files(Case):
    """The library's files."""

    def sources(self):
        paths = glob.glob(os.path.join(LIBRARY, "quickio", "*.py"))
        self.assertGreater(len(paths), 10)
        for path in paths:
            with open(path, encoding="utf-8") as file:
                yield os.path.basename(path), file.read()

    def test_they_are_python_3_9(self):
        for name, text in self.sources():
            ast.parse(text, name, feature_version=(3, 9))

    def test_the_first_files_parse_on_older_pythons(self):
        for name, text in self.sources():
            if name in ("__init__.py", "__main__.py", "_old.py"):
                ast.parse(text, name, feature_version=(3, 4))
                self.assertNotIn("import annotations", text)
                self.assertNotRegex(text, r"\bf['\"]|[^\x00-\x7f]")

    def test_lines_are_not_too_long(self):
        for name, text in self.sources():
            for number, line in enumerate(text.splitlines(), 1):
                self.assertLessEqual(len(line), 120, f"{name}:{number}")

    def test_an_old_python_says_which_one_is_needed(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(SECONDS)
            environment = {**os.environ, "PYTHONPATH": LIBRARY, "QUICKIO_WORKER": str(theirs.fileno())}
            command = [sys.executable, "-c", "from quickio import _old; _old.refuse()"]
            done = subprocess.run(command, env=environment, pass_fds=[theirs.fileno()], timeout=SECONDS)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(json.loads(ours.recv(10000))["failed"], "^Python 3.9 or newer is needed, but .* is Python 3")

    def test_without_a_server_it_says_who_starts_it(self):
        environment = {**os.environ, "PYTHONPATH": LIBRARY}
        environment.pop("QUICKIO_WORKER", None)
        command = [sys.executable, "-m", "quickio"]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=SECONDS)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"started by the server", done.stderr)


class Codec(Case):
    """The decoder, beside a naive one."""

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

    def test_every_split_of_a_stream_gives_the_same_frames(self):
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

    def test_random_streams_in_random_pieces(self):
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

    def test_lengths_that_cannot_be(self):
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

    def test_frames_for_the_server(self):
        self.assertEqual(_wire.null_answer(77), frame(ANSWER, code=200, request=77))
        self.assertEqual(_wire.data_answer(78, b"[]"), frame(ANSWER, data=b"[]", code=200, request=78))
        made = _wire.frame(3, b"/x", b"1", flags=1, code=2, request=3, number=4, client=(5, 6, 7), time=8)
        self.assertEqual(made, frame(3, b"/x", b"1", 1, 2, 3, 4, (5, 6, 7), 8))


class Beginning(Case):
    def test_ready_says_what_was_registered(self):
        worker = self.starting(
            """
            from quickio import app
            import helper, json
            app.event("//room@//")
            @app.event("/plain", children=True, subscriptions=False)
            def plain(event): pass
            @app.event("/hooks")
            async def hooks(event): pass
            @hooks.on
            def on(subscription): return True
            @hooks.off
            def off(unsubscribed): pass
            app.every(1.5, helper.nothing)
            cancelled = app.every(2, helper.nothing)
            cancelled.cancel()
            @app.start
            async def start():
                app.every(0.0001, helper.nothing)
            """,
            files={"helper.py": "def nothing(): pass\n"},
        )
        room = {"path": "/room", "children": False, "handler": False, "subscriptions": "everyone", "off": False}
        plain = {"path": "/plain", "children": True, "handler": True, "subscriptions": "nobody", "off": False}
        hooks = {"path": "/hooks", "children": False, "handler": True, "subscriptions": "ask", "off": True}
        files = [os.path.join(worker.folder.name, name) for name in ("helper.py", "script.py")]
        timers = [{"timer": 1, "ms": 1500}, {"timer": 3, "ms": 1}]
        expected = {"version": 1, "events": [room, plain, hooks], "timers": timers, "files": files}
        self.assertEqual(worker.ready(), expected)

    def test_what_hello_says(self):
        worker = self.worker(
            """
            import __main__, sys
            from quickio import app
            @app.event("/x")
            def x(event):
                return [app.name, app.instance, app.instances, dict(app.settings), __name__, sys.argv == [__file__]]
            """,
            app="greeter",
            instance=2,
            instances=4,
            settings={"greeting": "hello"},
            unheard={"of": 1},
        )
        expected = ["greeter", 2, 4, {"greeting": "hello"}, "__main__", True]
        self.assertEqual(json.loads(worker.ask(1)[40:]), expected)

    def test_a_script_without_events_is_fine(self):
        worker = self.worker("")
        self.assertEqual(self.said["events"], [])
        worker.end_links()
        self.assertEqual(worker.exit_code(), 0)

    def fails(self, text, why, log=None, **options):
        worker = self.starting(text, **options)
        self.assertEqual(worker.line(), {"failed": why})
        self.assertEqual(worker.exit_code(), 1)
        if log is not None:
            self.assertIn(log, worker.log())
        self.assertNotIn("_worker.py", worker.log())
        return worker.log()

    def test_a_syntax_error(self):
        why = "SyntaxError: invalid syntax (script.py, line 2)"
        self.assertNotIn("Traceback", self.fails("x = 1\nx = = 2\n", why, 'script.py", line 2').split("File")[0][40:])

    def test_an_exception(self):
        log = self.fails("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero (script.py, line 2)")
        self.assertIn("Traceback (most recent call last):", log)
        self.assertIn("return 1 / 0", log)

    def test_an_exception_in_a_module_of_the_script(self):
        files = {"helper.py": "import nonsense_that_is_not_there\n"}
        why = "ModuleNotFoundError: No module named 'nonsense_that_is_not_there' (helper.py, line 1)"
        self.fails("import helper\n", why, files=files)

    def test_a_script_that_exits(self):
        self.assertEqual(self.fails("import sys; sys.exit(3)", "the script called exit(3); only the server may end a worker"), "")
        self.fails("exit()", "the script called exit(); only the server may end a worker")

    def test_a_script_that_is_not_there(self):
        why = "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere.py'"
        self.fails("", why, script="/nowhere.py")

    def test_misuse_while_it_is_loaded(self):
        script = "from quickio import app\napp.event('/x')\napp.event('/x/')\n"
        self.fails(script, "ValueError: /x is already registered (script.py, line 3)")

    def test_another_version(self):
        ours = "this library uses version 1; use the library that comes with the server"
        why = f"the server uses version 2 of the worker protocol, but {ours}"
        self.fails("print('never')", why, version=2)

    def test_start_runs_before_ready_and_may_fail(self):
        script = """
            from quickio import app
            import asyncio
            @app.start
            def plain():
                app.log("info", "plain")
            @app.start
            async def start():
                await asyncio.sleep(0)
                app.log("warn", "async")
            """
        worker = self.starting(script)
        self.assertEqual(worker.line(), {"log": "info", "text": "plain"})
        self.assertEqual(worker.line(), {"log": "warn", "text": "async"})
        worker.ready()
        failing = "from quickio import app\n@app.start\ndef start():\n    raise OSError('no database')\n"
        self.fails(failing, "OSError: no database (script.py, line 4)")

    def test_nothing_can_be_sent_before_ready(self):
        script = """
            from quickio import app
            app.broadcast("/x")
            """
        why = "there is no server: call this from a handler, hook, callback or timer that the server runs"
        self.fails(script, f"NotRunning: {why} (script.py, line 3)")

    def test_a_bad_hello_ends_it(self):
        worker = self.starting("", links=0)
        worker.process.wait(SECONDS)
        self.assertEqual(worker.exit_code(), 1)
        self.assertIn("the hello names no links", worker.log())


class SelfTest(Case):
    SCRIPT = """
        from quickio import app
        @app.start
        def start(): raise SystemError("it does not serve")
        app.event("/x")
        @app.self_test
        async def check():
            %s
        """

    def test_it_is_asked_for(self):
        worker = self.worker(self.SCRIPT % "pass", links=0, test=True)
        self.assertEqual(self.said["events"][0]["path"], "/x")
        self.assertEqual(worker.line(), {"tested": True})
        self.assertEqual(worker.exit_code(), 0)

    def test_it_fails(self):
        worker = self.worker(self.SCRIPT % "raise ValueError('a template is missing')", links=0, test=True)
        self.assertEqual(worker.line(), {"failed": "ValueError: a template is missing (script.py, line 8)"})
        self.assertEqual(worker.exit_code(), 1)


class Events(Case):
    # Everything that a handler may do: the same for plain and async ones.
    SCRIPT = """
        from quickio import NEVER, Answer, Json, Refusal, app
        {async_}def null(event): pass
        {async_}def data(event): return {{"data": event.data, "é": [event.path, event.extra, event.full_path]}}
        {async_}def raw(event): return event.json
        {async_}def refusal(event): raise Refusal(418, "é", {{"a": 1}})
        {async_}def code(event): raise Refusal(404)
        {async_}def never(event): return NEVER
        {async_}def error(event): return 1 / 0
        {async_}def leave(event): exit(3)
        {async_}def nan(event): return float("nan")
        {async_}def unknown(event): return {{1, 2}}
        {async_}def wants(event): return event.wants_answer
        {async_}def text(event): return Json("[1, 2]")
        {async_}def plain_answer(event): return Answer([1])
        for function in (null, data, raw, refusal, code, never, error, leave, nan, unknown, wants, text, plain_answer):
            app.event("/" + function.__name__, children=True)(function)
        app.event("/none")
        """
    NULL, DATA, RAW, REFUSAL, CODE, NEVER, ERROR, LEAVE, NAN, UNKNOWN, WANTS, TEXT, PLAIN_ANSWER, NONE = range(14)

    def in_both(self, check):
        for async_ in ("", "async "):
            with self.subTest(async_ or "plain"):
                check(self.worker(self.SCRIPT.format(async_=async_)))

    def test_answers(self):
        def check(worker):
            self.assertEqual(worker.ask(1, self.NULL), answer(1))
            data = '{"data":[1,"é"],"é":["/data","/x/y","/data/x/y"]}'.encode()
            self.assertEqual(worker.ask(2, self.DATA, data='[1, "\\u00e9"]'.encode(), text=b"/x/y"), answer(2, data))
            data = b'{"data":null,"\xc3\xa9":["/data","","/data"]}'
            self.assertEqual(worker.ask(3, self.DATA), answer(3, data))
            self.assertEqual(worker.ask(4, self.RAW, data=b"no [ JSON"), answer(4, b"no [ JSON"))
            self.assertEqual(worker.ask(5, self.RAW), answer(5))
            self.assertEqual(worker.ask(6, self.REFUSAL), answer(6, b'{"a":1}', 418, message="é"))
            self.assertEqual(worker.ask(7, self.CODE), answer(7, code=404))
            self.assertEqual(worker.ask(8, self.NEVER), answer(8, code=0))
            self.assertEqual(worker.ask(9, self.WANTS), answer(9, b"true"))
            self.assertEqual(worker.ask(10, self.WANTS, flags=0), answer(10, b"false"))
            self.assertEqual(worker.ask((1 << 32) - 1, self.TEXT), answer((1 << 32) - 1, b"[1, 2]"))
            self.assertEqual(worker.ask(12, self.PLAIN_ANSWER), answer(12, b"[1]"))
            self.assertEqual(worker.ask(13, self.NONE), answer(13, code=500))
            self.assertEqual(worker.log(), "")

        self.in_both(check)

    def test_data_that_is_no_json(self):
        def check(worker):
            for raw in (b"[", b"NaN", b"[Infinity]", b"\xff", b'"\\ud800"', b"[" * 100000, b"1 2", b"9" * 10000 + b"x"):
                self.assertEqual(worker.ask(1, self.DATA, data=raw), answer(1, code=400, message="invalid JSON"))
            self.assertEqual(worker.log(), "", "that is no error of the application")

        self.in_both(check)

    def test_errors_are_logged_and_answered_500(self):
        def check(worker):
            for number in (self.ERROR, self.LEAVE, self.NAN, self.UNKNOWN):
                self.assertEqual(worker.ask(1, number), answer(1, code=500))
            self.assertLog(
                worker,
                "error in the handler of /unknown",
                "error in the handler of /error",
                "ZeroDivisionError: division by zero",
                'script.py", line 9',
                "error in the handler of /leave",
                "error in the handler of /nan",
                "Out of range float values",
                "TypeError: Object of type set is not JSON serializable",
            )
            self.assertNotIn("_runner.py", worker.log())

        self.in_both(check)

    def test_refusals_that_the_application_has_spoilt_are_answered_500(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import Refusal, app
                class NoMoney(Refusal):
                    def __init__(self, code):
                        super().__init__(402)
                        self.code = code
                class Forgets(Refusal):
                    def __init__(self): pass
                class Frozen(Exception):
                    def __setattr__(self, *_): raise TypeError("frozen")
                codes = [lambda code=code: NoMoney(code) for code in ("NO_MONEY", 200, 70000)]
                kinds = [*codes, Forgets, Frozen]
                @app.event("/spoilt")
                {async_}def spoilt(event): raise kinds[event.data % len(kinds)]()
                @app.event("/fine")
                {async_}def fine(event): pass
                """
            )
            # More than there are threads.
            for request in range(1, 41):
                worker.send(event(request, data=b"%d" % request, client=(0, request, 1)))
                self.assertEqual(worker.next(), answer(request, code=500))
            self.assertEqual(worker.ask(41, 1, client=(0, 1, 1)), answer(41))
            self.assertLog(worker, "an error code must be an int, not str", "200 is not an error code", "no attribute 'code'", "Frozen")

    def test_an_exception_that_is_raised_again_and_again_gathers_nothing(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import Refusal, app
                shared = Refusal(409)
                def depth(trace): return 0 if trace is None else 1 + depth(trace.tb_next)
                @app.event("/raise")
                {async_}def again(event): raise shared
                @app.event("/depth")
                {async_}def get(event): return depth(shared.__traceback__)
                """
            )
            for request in range(1, 11):
                self.assertEqual(worker.ask(request), answer(request, code=409))
            self.assertEqual(worker.ask(11, 1), answer(11, b"0"))

    def test_an_error_of_the_library_does_not_pass_unnoticed(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import Event, app
                def _description(event): raise SystemExit("spoilt")
                Event._description = _description
                @app.event("/x")
                {async_}def x(event): raise OSError
                """
            )
            worker.send(event(1))
            self.assertEqual(worker.exit_code(), 1)
            self.assertIn("internal error", worker.log())

    def test_a_log_that_cannot_be_written_stops_nothing(self):
        worker = self.worker(
            """
            import sys
            from quickio import app
            @app.event("/x")
            def x(event):
                sys.stderr = None
                raise OSError
            """
        )
        for request in range(1, 21):
            self.assertEqual(worker.ask(request), answer(request, code=500))

    def test_frames_that_are_split_anywhere(self):
        stream = event(1, self.DATA, data=b'"x"', text=b"/y") + event(2, self.RAW, data=b"{}") + event(3, self.NULL)
        data = b'{"data":"x","\xc3\xa9":["/data","/y","/data/y"]}'
        expected = [answer(1, data), answer(2, b"{}"), answer(3)]

        def check(worker):
            for split in range(1, len(stream)):
                worker.send(stream[:split])
                worker.ping()
                worker.send(stream[split:])
                self.assertEqual(sorted(worker.take(3)), sorted(expected), split)
            for byte in stream:
                worker.send(bytes([byte]))
            self.assertEqual(sorted(worker.take(3)), sorted(expected))

        self.in_both(check)

    def test_many_in_one_piece(self):
        def check(worker):
            count = 5000
            worker.send(*(event(request, self.RAW, data=b"%d" % request) for request in range(1, count + 1)))
            expected = [answer(request, b"%d" % request) for request in range(1, count + 1)]
            self.assertEqual(worker.take(count), expected, "in order, since none was slow")

        self.in_both(check)

    def test_a_long_event(self):
        def check(worker):
            data = json.dumps("x" * 3_000_000).encode()
            self.assertEqual(worker.ask(1, self.RAW, data=data), answer(1, data))

        self.in_both(check)

    def test_what_else_can_be_called(self):
        worker = self.worker(
            """
            import functools
            from quickio import app
            async def inner(number, event): return number
            class Called:
                async def __call__(self, event): return 2
                def method(self, event): return 3
                async def async_method(self, event): return 4
            def wrapper(event): return inner(5, event)
            functions = [functools.partial(inner, 1), Called(), Called().method, Called().async_method, wrapper, str]
            for number, function in enumerate(functions, 1):
                app.event(f"/{number}")(function)
            """
        )
        for number in range(1, 6):
            self.assertEqual(worker.ask(number, number - 1), answer(number, b"%d" % number))
        self.assertIn(b"Event object", worker.ask(6, 5))

    def test_tasks_are_tasks(self):
        """What asks for the current task works in a handler, from its first step on."""
        worker = self.worker(
            """
            import asyncio
            from quickio import app
            @app.event("/x")
            async def x(event):
                task = asyncio.current_task()
                try:
                    await asyncio.wait_for(asyncio.Event().wait(), 0.001)
                except asyncio.TimeoutError:
                    return task is asyncio.current_task()
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"true"))

    def test_a_cancelled_task_is_answered(self):
        worker = self.worker(
            """
            import asyncio
            from quickio import app
            @app.event("/x")
            async def x(event):
                asyncio.current_task().cancel()
                await asyncio.sleep(10)
            """
        )
        self.assertEqual(worker.ask(1), answer(1, code=500))


class Commands(Case):
    SCRIPT = """
        from quickio import Json, app
        @app.event("/do")
        {async_}def do(event):
            app.broadcast("/to//all@", {{"a": 1}})
            app.broadcast("/b", event.json)
            app.broadcast("/c")
            app.send(event.client, "/one", [1])
            app.move(event.client, "other:8080")
            app.close(event.client)
            return "done"
        """

    def test_what_they_send(self):
        for async_ in ("", "async "):
            worker = self.worker(self.SCRIPT.format(async_=async_))
            worker.send(event(1, client=BOB, data=b"[2]"), link=1)
            expected = [[], []]
            for path, data in ((b"/to/all", b'{"a":1}'), (b"/b", b"[2]"), (b"/c", b"")):
                expected[zlib.crc32(path) % 2].append(frame(BROADCAST, path, data))
            expected[1] += [frame(SEND, b"/one", b"[1]", client=BOB), frame(MOVE, b"other:8080", client=BOB)]
            expected[1] += [frame(CLOSE, client=BOB), answer(1, b'"done"')]
            for link in range(2):
                self.assertEqual(worker.take(len(expected[link]), link), expected[link])

    def test_any_thread_may_call_them_and_their_order_is_kept(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            @app.event("/do")
            async def do(event):
                def broadcast(thread):
                    for nth in range(500):
                        app.broadcast("/x", [thread, nth])
                for thread in range(4):
                    threading.Thread(target=broadcast, args=(thread,)).start()
            """,
            links=1,
        )
        worker.send(event(1))
        frames = [frame for frame in worker.take(2001) if frame[4] == BROADCAST]
        said = [json.loads(frame[42:]) for frame in frames]
        for thread in range(4):
            self.assertEqual([nth for who, nth in said if who == thread], list(range(500)))

    def test_the_clock_is_the_servers_and_does_not_go_back(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/now")
            async def now(event): return app.now()
            """
        )
        self.assertEqual(worker.ask(1, time=1500), answer(1, b"1.5"))
        self.assertEqual(worker.ask(2, time=1499, link=1), answer(2, b"1.5"))
        self.assertEqual(worker.ask(3, time=1501, link=1), answer(3, b"1.501"))

    def test_lines_of_the_log(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/log")
            def log(event):
                app.log("debug", "é\\n" + 300000 * "\U0001f980")
            """
        )
        worker.ask(1)
        line = worker.line()
        self.assertEqual(line["log"], "debug")
        self.assertTrue(line["text"].startswith("é\n\U0001f980"))
        self.assertLess(len(json.dumps(line)), 1 << 20)
        worker.ping()


class Threads(Case):
    def test_a_slow_function_delays_nobody_else(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            may_go = threading.Event()
            @app.event("/wait")
            def wait(event): may_go.wait()
            @app.event("/quick")
            def quick(event): pass
            @app.event("/quick_async")
            async def quick_async(event): pass
            @app.event("/go")
            def go(event): may_go.set()
            """
        )
        worker.send(event(1, 1), event(2, 0), event(3, 1, client=BOB), event(4, 2), event(5, 0, client=BOB))
        worker.send(event(6, 1, client=(0, 1, 1)))
        self.assertEqual(sorted(worker.take(4)), [answer(request) for request in (1, 3, 4, 6)])
        worker.send(event(7, 3, client=(0, 2, 2)))
        self.assertEqual(sorted(worker.take(3)), [answer(request) for request in (2, 5, 7)])

    def test_what_a_slow_function_has_sent_does_not_wait_for_its_end(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            may_go = threading.Event()
            @app.event("/wait")
            def wait(event):
                app.broadcast("/begun")
                may_go.wait()
                app.broadcast("/ended")
            @app.event("/go")
            def go(event): may_go.set()
            """,
            links=1,
        )
        worker.send(event(1, 0))
        self.assertEqual(worker.next(), frame(BROADCAST, b"/begun"))
        worker.send(event(2, 1, client=BOB))
        self.assertEqual(sorted(worker.take(3)), sorted([answer(2), frame(BROADCAST, b"/ended"), answer(1)]))

    def test_functions_of_one_client_run_in_order_and_never_at_the_same_time(self):
        worker = self.worker(
            """
            import collections, time
            from quickio import app
            running = collections.Counter()
            overlaps = 0
            @app.event("/x")
            def x(event):
                global overlaps
                running[event.client] += 1
                overlaps += running[event.client] > 1
                time.sleep(event.data)
                running[event.client] -= 1
                return event.client.id
            @app.event("/overlaps")
            def get(event): return overlaps
            """,
            links=1,
        )
        rng = random.Random(1)
        sent = collections.defaultdict(list)
        frames = []
        for request in range(1, 301):
            client = (0, rng.randrange(6), 1)
            sent[client].append(request)
            seconds = rng.choice(("0", "0", "0", "0.001", "0.01"))
            frames.append(event(request, client=client, data=seconds.encode()))
        worker.send(*frames)
        answered = collections.defaultdict(list)
        for raw in worker.take(300):
            client = tuple(int(part) for part in json.loads(raw[40:]).split("."))
            answered[client].append(HEAD.unpack(raw[:40])[4])
        self.assertEqual(answered, sent)
        self.assertEqual(worker.ask(301, 1), answer(301, b"0"))

    def test_there_are_no_more_than_was_said(self):
        script = """
            import threading
            from quickio import app
            app.threads = %d
            barrier = threading.Barrier(%d)
            @app.event("/meet")
            def meet(event): barrier.wait()
            @app.event("/count")
            async def count(event):
                return sum(thread.name.startswith("quickio-") for thread in threading.enumerate())
            """
        worker = self.worker(script % (20, 20))
        worker.send(*(event(request, client=(0, request, 1)) for request in range(1, 21)))
        self.assertEqual(sorted(worker.take(20)), [answer(request) for request in range(1, 21)])
        self.assertEqual(worker.ask(21, 1), answer(21, b"20"))
        worker = self.worker(script % (3, 4))
        worker.send(*(event(request, client=(0, request, 1)) for request in range(1, 11)))
        counts, deadline = [], time.monotonic() + SECONDS
        while len(counts) < 100 or (counts[-1] < 3 and time.monotonic() < deadline):
            counts.append(int(worker.ask(21, 1)[40:]))
        self.assertEqual(max(counts), 3)

    def test_functions_that_wait_a_little_each_do_so_at_the_same_time(self):
        worker = self.worker(
            """
            import threading, time
            from quickio import app
            running = set()
            most = 0
            @app.event("/x")
            def x(event):
                global most
                running.add(event.client)
                most = max(most, len(running))
                time.sleep(0.0005)
                running.discard(event.client)
            @app.event("/most")
            async def get(event): return most
            """
        )
        most, request = 0, 0
        deadline = time.monotonic() + SECONDS
        while most < 4 and time.monotonic() < deadline:
            worker.send(*(event(request + nth, client=(0, nth, 1)) for nth in range(1, 501)))
            worker.take(500)
            request += 500
            most = int(worker.ask(request + 501, 1)[40:])
        self.assertGreaterEqual(most, 4)

    def test_each_tick_sends_what_quick_functions_have_written(self):
        class Loop:
            def call_later(self, seconds, function): pass

        flushed, begun, may_go = [], threading.Event(), threading.Event()

        def run(function, args, outcome):
            function()

        def wait():
            begun.set()
            may_go.wait(SECONDS)

        pool = _pool.Pool(Loop(), 1, run, lambda: flushed.append(1), set())
        pool.submit([(ADA, int, (), None), (ADA, wait, (), None)])
        self.assertTrue(begun.wait(SECONDS))
        pool._tick()  # a job has been done since the last one
        self.assertEqual(flushed, [1])
        may_go.set()

    def test_quick_functions_need_one(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            @app.event("/x")
            def x(event): pass
            @app.event("/count")
            async def count(event):
                return [thread.name for thread in threading.enumerate() if thread.name.startswith("quickio-")]
            """
        )
        for request in range(1, 201):
            self.assertEqual(worker.ask(request), answer(request))
        # One more may have been set free where the machine stood still.
        self.assertLessEqual(len(json.loads(worker.ask(1000, 1)[40:])), 3)


class Later(Case):
    def test_answers_come_from_anywhere(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                import threading
                from quickio import NEVER, AlreadyAnswered, Answer, app
                kept = []
                @app.event("/later")
                {async_}def keep(event):
                    kept.append(event.later())
                    return event.later()
                @app.event("/thread")
                {async_}def thread(event):
                    later = event.later()
                    threading.Thread(target=lambda: later.answer([event.data])).start()
                    return later
                @app.event("/finish")
                {async_}def finish(event):
                    first = kept.pop(0)
                    if event.data == "error":
                        first.error(404, "not there", 1)
                    elif event.data == "never":
                        first.answer(NEVER)
                    else:
                        first.answer(Answer(event.data, callback=print))
                    for again in (first.answer, lambda: first.error(500)):
                        try:
                            again()
                        except AlreadyAnswered:
                            pass
                        else:
                            raise SystemError("twice")
                """
            )
            self.assertEqual(worker.ask(1, 1, data=b"7"), answer(1, b"[7]"))
            for request, data, expected in (
                (2, b'"error"', answer(2, b"1", 404, message="not there")),
                (3, b'"never"', answer(3, code=0)),
                (4, b"[]", answer(4, b"[]", number=1)),
            ):
                worker.send(event(request, 0))
                worker.send(event(request + 100, 2, data=data))
                self.assertEqual(sorted(worker.take(2)), sorted([expected, answer(request + 100)]))

    def test_one_that_nobody_keeps_is_answered_500(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                kept = []
                @app.event("/drop")
                {async_}def drop(event): return event.later()
                @app.event("/keep")
                {async_}def keep(event):
                    kept.append(event.later())
                    return kept[-1]
                @app.event("/clear")
                {async_}def clear(event): kept.clear()
                app.event("/hook")
                """
            )
            self.assertEqual(worker.ask(1, 0), answer(1, code=500))
            worker.send(event(2, 1))
            self.assertEqual([worker.ask(3, 2), worker.next()], [answer(2, code=500), answer(3)])
            self.assertEqual(worker.log(), "")

    def test_a_promise_that_is_not_returned_is_a_mistake(self):
        worker = self.worker(
            """
            from quickio import app
            kept = []
            @app.event("/forgotten")
            async def forgotten(event): kept.append(event.later())
            @app.event("/other")
            async def other(event): return kept[0]
            @app.event("/raises")
            async def raises(event):
                kept.append(event.later())
                raise OSError
            @app.event("/answered")
            async def answered(event):
                event.later().answer(1)
                raise OSError
            """
        )
        self.assertEqual(worker.ask(1, 0), answer(1, code=500))
        self.assertLog(worker, "it called later(), but did not return the promise: write `return later`")
        self.assertEqual(worker.ask(2, 1), answer(2, code=500))
        self.assertLog(worker, "it returned the promise of another request")
        self.assertEqual(worker.ask(3, 2), answer(3, code=500))
        self.assertEqual(worker.ask(4, 3), answer(4, b"1"))
        self.assertEqual(worker.ask(5, 3), answer(5, b"1"), "the error came too late for an answer")

    def test_it_is_too_late_for_a_promise_when_the_function_has_returned(self):
        worker = self.worker(
            """
            from quickio import AlreadyAnswered, app
            kept = []
            @app.event("/keep")
            async def keep(event): kept.append(event)
            @app.event("/fail")
            async def fail(event):
                kept.append(event)
                raise OSError
            @app.event("/use")
            async def use(event):
                try:
                    kept.pop().later()
                except AlreadyAnswered:
                    return "too late"
            """
        )
        for number, expected in ((0, answer(1)), (1, answer(1, code=500))):
            self.assertEqual(worker.ask(1, number), expected)
            self.assertEqual(worker.ask(2, 2), answer(2, b'"too late"'))

    def test_many_threads_one_answer(self):
        worker = self.worker(
            """
            import threading
            from quickio import AlreadyAnswered, app
            @app.event("/race")
            async def race(event):
                later = event.later()
                def run():
                    try: later.answer("one")
                    except AlreadyAnswered: pass
                for _ in range(4): threading.Thread(target=run).start()
                return later
            """
        )
        for request in range(1, 51):
            self.assertEqual(worker.ask(request), answer(request, b'"one"'))


class Subscriptions(Case):
    SCRIPT = """
        import asyncio
        from quickio import NEVER, Refusal, app
        kept = []
        async def generator(): yield
        others = {{"nothing": None, "never": NEVER, "generator": generator(), "one": 1, "text": "no"}}
        others["future"] = asyncio.get_event_loop_policy().get_event_loop().create_future()
        room = app.event("/room", children=True)
        @room.on
        {async_}def on(subscription):
            data = subscription.data
            if data == "later":
                kept.append(subscription.later())
                return kept[-1]
            if data == "drop": return subscription.later()
            if isinstance(data, str) and data in others: return others[data]
            if data == "refusal": raise Refusal(420, "full")
            if data == "error": raise OSError
            return data == [subscription.path, subscription.extra, subscription.full_path]
        @room.off
        {async_}def off(unsubscribed):
            app.broadcast("/off", [unsubscribed.full_path, unsubscribed.extra, unsubscribed.client.id])
        @app.event("/decide")
        {async_}def decide(event):
            if event.data:
                kept.pop().accept()
            else:
                kept.pop().refuse()
        app.event("/no_hook")
        """

    OTHERS = (b"nothing", b"never", b"generator", b"one", b"text", b"future")

    def on(self, request, data, number=0):
        return frame(ON, b"/x", data, request=request, number=number, client=ADA)

    def test_hooks(self):
        for async_ in ("", "async "):
            worker = self.worker(self.SCRIPT.format(async_=async_), links=1)
            for data, expected in (
                (b'["/room","/x","/room/x"]', answer(1)),
                (b"", answer(1, code=401)),
                *((b'"%s"' % other, answer(1, code=500)) for other in self.OTHERS),
                (b'"drop"', answer(1, code=500)),
                (b'"refusal"', answer(1, code=420, message="full")),
                (b"[", answer(1, code=400, message="invalid JSON")),
                (b'"error"', answer(1, code=500)),
            ):
                worker.send(self.on(1, data))
                self.assertEqual(worker.next(), expected, data)
            self.assertLog(worker, "the on-hook of /room", "True, False or its promise, not Never")
            for data, code in ((b"true", 200), (b"false", 401)):
                worker.send(self.on(2, b'"later"'))
                worker.send(event(3, 1, data=data))
                self.assertEqual(sorted(worker.take(2)), sorted([answer(2, code=code), answer(3)]))
            worker.send(frame(OFF, b"/x", client=ADA))
            self.assertEqual(worker.next(), frame(BROADCAST, b"/off", b'["/room/x","/x","0.5.7"]'))
            # Of an event without hooks nothing is to be asked or told.
            worker.send(self.on(4, b"", number=2), frame(OFF, number=2, client=ADA))
            self.assertEqual(worker.next(), answer(4, code=500))

    def test_an_error_in_the_off_hook_is_logged(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                room = app.event("/room")
                @room.off
                {async_}def off(unsubscribed): raise OSError("off")
                """
            )
            worker.send(frame(OFF, client=ADA))
            self.assertLog(worker, "OSError: off", "the off-hook of /room")


class Callbacks(Case):
    def test_a_dialogue(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import Answer, Refusal, app
                @app.event("/order")
                {async_}def order(event): return Answer(12, callback=bought)
                {async_}def bought(reply):
                    if reply.data == "later":
                        later = reply.later()
                        later.answer("late")
                        return later
                    if reply.data == "refuse": raise Refusal(409)
                    if reply.data == "error": raise OSError
                    return Answer([reply.data, reply.client.id, reply.wants_answer], callback=bought)
                """
            )
            self.assertEqual(worker.ask(1), answer(1, b"12", number=1))
            worker.send(frame(REPLY, data=b"{}", flags=1, request=2, number=1, client=ADA))
            self.assertEqual(worker.next(), answer(2, b'[{},"0.5.7",true]', number=2))
            for request, data, expected in (
                (3, b'"later"', answer(3, b'"late"')),
                (4, b'"refuse"', answer(4, code=409)),
                (5, b'"error"', answer(5, code=500)),
                (6, b"[", answer(6, code=400, message="invalid JSON")),
            ):
                number = request
                self.assertEqual(worker.ask(100), answer(100, b"12", number=number))
                worker.send(frame(REPLY, data=data, request=request, number=number, client=ADA))
                self.assertEqual(worker.next(), expected)
            self.assertLog(worker, "error in a callback")

    def test_one_that_is_dropped(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                def dropped(): app.broadcast("/dropped")
                async def dropped_async(): raise OSError("dropped")
                @app.event("/send")
                {async_}def send(event):
                    app.send(event.client, "/told", 1, callback=print, dropped=event.data and dropped or dropped_async)
                @app.event("/promise")
                {async_}def promise(event):
                    later = event.later()
                    app.send(event.client, "/told", callback=lambda reply: later.answer("delivered"))
                    return later
                """,
                links=1,
            )
            worker.send(event(1, data=b"1"))
            self.assertEqual(worker.take(2), [frame(SEND, b"/told", b"1", number=1, client=ADA), answer(1)])
            worker.send(frame(DROPPED, number=1))
            self.assertEqual(worker.next(), frame(BROADCAST, b"/dropped"))
            worker.send(event(2, data=b"0"))
            worker.take(2)
            worker.send(frame(DROPPED, number=2))
            self.assertLog(worker, "OSError: dropped", "a `dropped` function")
            # A promise goes with the callback that has it.
            self.assertEqual(worker.ask(3, 1), frame(SEND, b"/told", number=3, client=ADA))
            worker.send(frame(DROPPED, number=3))
            self.assertEqual(worker.next(), answer(3, code=500))
            self.assertEqual(worker.ask(4, 1), frame(SEND, b"/told", number=4, client=ADA))
            worker.send(frame(REPLY, request=5, number=4, client=ADA))
            self.assertEqual(sorted(worker.take(2)), sorted([answer(4, b'"delivered"'), answer(5)]))

    def test_dropped_runs_in_its_clients_turn(self):
        worker = self.worker(
            """
            import threading, time
            from quickio import app
            seen = []
            may_go = threading.Event()
            @app.event("/offer")
            def offer(event): app.send(event.client, "/told", callback=print, dropped=lambda: seen.append("dropped"))
            @app.event("/slow")
            def slow(event):
                may_go.wait()
                seen.append("slow")
            @app.event("/quick")
            def quick(event): return seen
            @app.event("/go")
            async def go(event): may_go.set()
            """,
            links=1,
        )
        worker.ask(1)
        worker.next()
        worker.send(event(2, 1), frame(DROPPED, number=1), event(3, 2), event(4, 2, client=BOB))
        self.assertEqual(worker.next(), answer(4, b"[]"))
        worker.send(event(5, 3))
        frames = worker.take(3)
        self.assertEqual(sorted(frames), sorted([answer(5), answer(2), answer(3, b'["slow","dropped"]')]))

    ASK = """
        import asyncio
        from quickio import Dropped, app
        @app.event("/ask")
        async def ask(event):
            try:
                return [await app.ask(event.client, "/question", event.data)]
            except Dropped:
                if event.data: raise
                return "dropped"
        @app.event("/give_up")
        async def give_up(event):
            try:
                await asyncio.wait_for(app.ask(event.client, "/question"), 0)
            except asyncio.TimeoutError:
                return "given up"
        """

    def test_asking(self):
        worker = self.worker(self.ASK)
        question = frame(SEND, b"/question", b"1", number=1, client=ADA)
        self.assertEqual(worker.ask(1, data=b"1"), question)
        worker.send(frame(REPLY, data=b'{"a":2}', request=9, number=1, client=ADA))
        self.assertEqual(worker.take(2), [answer(9), answer(1, b'[{"a":2}]')])
        for request, (data, expected) in enumerate(((b"", answer(2, b'"dropped"')), (b"1", answer(3, code=500))), 2):
            worker.ask(request, data=data)
            worker.send(frame(DROPPED, number=request))
            self.assertEqual(worker.next(), expected)
        worker.ask(4)
        worker.send(frame(REPLY, data=b"[", request=9, number=4, client=ADA))
        self.assertEqual(worker.take(2), [answer(9, code=400, message="invalid JSON"), answer(4, b'"dropped"')])
        self.assertEqual(worker.log(), "", "a client that does not reply is no error of the application")

    def test_a_reply_that_nobody_waits_for_any_more(self):
        worker = self.worker(self.ASK)
        worker.send(event(1, 1), event(2, 1))
        frames = worker.take(4)
        self.assertEqual([raw for raw in frames if raw[4] == ANSWER], [answer(n, b'"given up"') for n in (1, 2)])
        worker.send(frame(REPLY, request=3, number=1, client=ADA), frame(DROPPED, number=2))
        self.assertEqual(worker.next(), answer(3))
        self.assertEqual(worker.log(), "")

    def test_none_is_kept(self):
        worker = self.worker(
            """
            import gc
            from quickio import Answer, Reply, app, Client, Event
            @app.event("/offer")
            async def offer(event):
                event.client.id
                return Answer(callback=lambda reply: event.path)
            @app.event("/count")
            async def count(event):
                gc.collect()
                return [sum(type(thing) is kind for thing in gc.get_objects()) for kind in (Client, Event, Reply)] + [
                    len(link.callbacks) + len(link.watched) + len(link.pending_requests) for link in app._links]
            """
        )
        for nth in range(1, 101):
            worker.ask(nth)
            if nth % 2:
                worker.send(frame(DROPPED, number=nth))
            else:
                worker.send(frame(REPLY, request=200, number=nth, client=ADA))
                worker.next()
        # Its own event, and the request itself.
        self.assertEqual(worker.ask(300, 1), answer(300, b"[0,1,0,1,0]"))


class Timers(Case):
    def test_those_that_are_set_before_there_is_a_server(self):
        worker = self.worker(
            """
            from quickio import app
            app.every(1, lambda: app.broadcast("/second"))
            app.after(0.25, lambda: app.broadcast("/early"))
            """,
            links=1,
        )
        self.assertEqual(self.said["timers"], [{"timer": 1, "ms": 1000}])
        self.assertEqual(worker.next(), frame(SET_TIMER, number=2, time=250))
        for number, path in ((1, b"/second"), (2, b"/early")):
            worker.send(frame(TIMER, number=number))
            self.assertEqual(worker.next(), frame(BROADCAST, path))

    def test_setting_and_cancelling(self):
        worker = self.worker(
            """
            from quickio import app
            timers = []
            async def once(): app.broadcast("/once")
            @app.event("/set")
            async def set(event): timers.append((app.every if event.data else app.after)(0.0101, once))
            @app.event("/cancel")
            def cancel(event):
                timers[-1].cancel()
                timers.pop().cancel()
            """,
            links=1,
        )
        worker.send(event(1, 0))
        self.assertEqual(worker.take(2), [frame(SET_TIMER, number=1, time=11), answer(1)])
        worker.send(frame(TIMER, number=1))
        self.assertEqual(worker.next(), frame(BROADCAST, b"/once"))
        # It has fired: there is nothing to cancel, and one that comes late is none.
        self.assertEqual(worker.ask(2, 1), answer(2))
        worker.send(frame(TIMER, number=1), event(3, 0, data=b"1"))
        self.assertEqual(worker.take(2), [frame(SET_TIMER, number=2, time=11, flags=1), answer(3)])
        for _ in range(3):
            worker.send(frame(TIMER, number=2))
            self.assertEqual(worker.next(), frame(BROADCAST, b"/once"))
        worker.send(event(4, 1))
        self.assertEqual(worker.take(2), [frame(CANCEL, number=2), answer(4)])
        worker.send(frame(TIMER, number=2), event(5, 0))
        self.assertEqual(worker.take(2), [frame(SET_TIMER, number=3, time=11), answer(5)])

    def test_a_destructor_may_cancel_one_at_any_moment(self):
        worker = self.worker(
            """
            import gc
            from quickio import _timers, app
            class Timer(_timers.Timer):
                def __init__(self, *args):
                    gc.collect()  # as it may happen whenever something is made
                    super().__init__(*args)
            _timers.Timer = Timer
            class Holder:
                def __init__(self):
                    self.myself = self
                    self.timer = app.after(1000, print)
                def __del__(self): self.timer.cancel()
            @app.event("/x")
            async def x(event):
                Holder()
                app.after(1000, print)
            """,
            links=1,
        )
        worker.send(event(1))
        frames = [frame(SET_TIMER, number=1, time=1_000_000), frame(CANCEL, number=1)]
        frames += [frame(SET_TIMER, number=2, time=1_000_000), answer(1)]
        self.assertEqual(worker.take(4), frames)

    def test_a_run_is_left_out_while_one_is_not_done(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                import asyncio, threading
                from quickio import app
                may_go = threading.Event()
                {async_}def run():
                    app.broadcast("/run")
                    while not may_go.is_set():
                        {"await asyncio.sleep(0.001)" if async_ else "may_go.wait()"}
                    raise OSError("a run")
                app.every(1, run)
                @app.event("/go")
                async def go(event):
                    may_go.set()
                """,
                links=1,
            )
            worker.send(*(frame(TIMER, number=1) for _ in range(3)))
            self.assertEqual(worker.next(), frame(BROADCAST, b"/run"))
            self.assertEqual(worker.ask(1), answer(1))
            self.assertLog(worker, "OSError: a run", "error in a timer")
            # It goes on behind an error; a run may be left out until the log is written and the run has ended.
            deadline = time.monotonic() + SECONDS
            worker.links[0].settimeout(0.05)
            while time.monotonic() < deadline:
                worker.send(frame(TIMER, number=1))
                try:
                    self.assertEqual(worker.next(), frame(BROADCAST, b"/run"))
                    break
                except socket.timeout:
                    continue


class Clients(Case):
    SCRIPT = """
        from quickio import app
        @app.event("/count")
        {async_}def count(event):
            event.client.data["count"] = event.client.data.get("count", 0) + 1
            return event.client.data["count"]
        @count.off
        {off}def off(unsubscribed):
            unsubscribed.client.data["off"] = True
        @app.gone
        {gone}def gone(client):
            app.broadcast("/gone", [client.id, client.data])
        """

    def test_what_is_kept_for_a_client(self):
        for mode in range(8):
            words = ["async " if mode & bit else "" for bit in (1, 2, 4)]
            with self.subTest(words):
                script = self.SCRIPT.format(async_=words[0], off=words[1], gone=words[2])
                worker = self.worker(script, links=1)
                worker.send(event(1), event(2), event(3, client=BOB))
                frames = worker.take(5)
                self.assertEqual(frames.count(frame(WATCH, client=ADA)), 1)
                self.assertEqual(frames.count(frame(WATCH, client=BOB)), 1)
                expected = [answer(1, b"1"), answer(2, b"2"), answer(3, b"1")]
                self.assertEqual([raw for raw in frames if raw[4] == ANSWER], expected)
                # All in one piece: the event, the end of the subscription and the client's still go in this order.
                worker.send(event(4), frame(OFF, client=ADA), frame(GONE, client=ADA))
                gone = frame(BROADCAST, b"/gone", b'["0.5.7",{"count":3,"off":true}]')
                self.assertEqual(worker.take(2), [answer(4, b"3"), gone])
                # What comes for one that has gone already: data anew, and told anew.
                worker.send(event(5))
                self.assertEqual(worker.take(2), [frame(WATCH, client=ADA), answer(5, b"1")])
                # One that was never watched has no end.
                worker.send(frame(GONE, client=(9, 9, 9)), frame(GONE, client=ADA))
                self.assertEqual(worker.next(), frame(BROADCAST, b"/gone", b'["0.5.7",{"count":1}]'))

    def test_clients_are_keys(self):
        worker = self.worker(
            """
            from quickio import app
            seen = {}
            @app.event("/seen")
            async def seen_before(event):
                before = event.client in seen
                seen[event.client] = 1
                return [before, len(seen), event.client.shard, event.client == "x", event.client is event.client]
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"[false,1,0,false,true]"))
        self.assertEqual(worker.ask(2), answer(2, b"[true,1,0,false,true]"))
        self.assertEqual(worker.ask(3, client=(0, 5, 8)), answer(3, b"[false,2,0,false,true]"))
        self.assertEqual(worker.ask(4, client=BOB, link=1), answer(4, b"[false,3,1,false,true]"))

    def test_threads_that_race_for_the_data_share_it(self):
        worker = self.worker(
            """
            import threading
            from quickio import app
            @app.event("/race")
            async def race(event):
                from quickio._client import client_of
                clients = [client_of(event.client._link, event.client._key) for _ in range(8)]
                threads = [threading.Thread(target=lambda c=c: c.data.setdefault("x", [])) for c in clients]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                return len({id(client.data) for client in clients})
            """
        )
        for nth in range(1, 51):
            client = (0, nth, 1)
            worker.send(event(nth, client=client))
            self.assertEqual(worker.take(2), [frame(WATCH, client=client), answer(nth, b"1")])

    def test_threads_that_race_with_the_same_object_share_its_data(self):
        others = []

        class Watched(dict):
            def setdefault(self, key, value):
                if not others:  # another thread, which has seen that there is none yet
                    others.append(None)
                    others[0] = client._create_data()
                return super().setdefault(key, value)

        class Link:
            watched, told = Watched(), []
            watch = told.append

        client = _client.Client(Link, ADA)
        self.assertIs(client.data, others[0])
        self.assertIs(client.data, others[0])
        self.assertEqual(Link.told, [ADA])

    def test_an_error_in_gone_is_logged(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/watch")
            async def watch(event): event.client.data
            @app.gone
            def first(client): raise OSError("first")
            @app.gone
            async def second(client): app.broadcast("/second")
            """,
            links=1,
        )
        worker.send(event(1))
        worker.take(2)
        worker.send(frame(GONE, client=ADA))
        self.assertEqual(worker.next(), frame(BROADCAST, b"/second"))
        self.assertLog(worker, "OSError: first", "a function of app.gone")


class End(Case):
    SCRIPT = """
        import asyncio, threading
        from quickio import Dropped, app
        may_go = threading.Event()
        kept = []
        @app.event("/plain")
        def plain(event): may_go.wait()
        @app.event("/async")
        async def async_(event):
            while not may_go.is_set(): await asyncio.sleep(0.001)
        @app.event("/later")
        async def later(event):
            kept.append(event.later())
            return kept[-1]
        @app.event("/ask")
        async def ask(event):
            try:
                await app.ask(event.client, "/question")
            except Dropped:
                # Nobody can reply any more, now or later.
                try:
                    await app.ask(event.client, "/again")
                except Dropped:
                    may_go.set()
                    kept.pop().answer("late")
                    return "dropped"
        @app.stop
        async def stop():
            app.broadcast("/stop")
        @app.stop
        def stop_plain():
            raise OSError("stop")
        app.every(1, print)
        """

    def test_what_is_under_way_is_done(self):
        worker = self.worker(self.SCRIPT, links=1)
        worker.send(event(1, 0), event(2, 1), event(3, 2), event(4, 3))
        self.assertEqual(worker.next(), frame(SEND, b"/question", number=1, client=ADA))
        worker.end_links()
        frames = worker.take(5)
        again = frame(SEND, b"/again", number=2, client=ADA)
        answers = [answer(1), answer(2), answer(3, b'"late"'), answer(4, b'"dropped"')]
        self.assertEqual(sorted(frames), sorted([again, *answers]))
        self.assertEqual(worker.next(), frame(BROADCAST, b"/stop"))
        self.assertEqual(worker.links[0].recv(1), b"")
        self.assertEqual(worker.exit_code(), 0)
        self.assertIn("OSError: stop", worker.log())

    def test_tasks_of_the_application_can_clean_up(self):
        worker = self.worker(
            """
            import asyncio
            from quickio import app
            async def background():
                try:
                    await asyncio.Event().wait()
                finally:
                    app.broadcast("/clean")
            @app.start
            async def start():
                app.task = asyncio.create_task(background())
                await asyncio.sleep(0)
            """,
            links=1,
        )
        worker.end_links()
        self.assertEqual(worker.next(), frame(BROADCAST, b"/clean"))
        self.assertEqual(worker.exit_code(), 0)
        self.assertEqual(worker.log(), "")

    def test_all_links_have_to_end(self):
        worker = self.worker(self.SCRIPT)
        worker.links[0].shutdown(socket.SHUT_WR)
        worker.ping()
        worker.send(event(1, 2, client=BOB), event(2, 3, client=BOB), link=1)
        self.assertEqual(worker.next(1), frame(SEND, b"/question", number=1, client=BOB))
        worker.links[1].shutdown(socket.SHUT_WR)
        self.assertEqual(worker.exit_code(), 0)

    def test_the_end_of_the_control_socket_is_the_end(self):
        worker = self.worker(self.SCRIPT)
        worker.send(event(1, 0), event(2, 1), event(3, 2))
        worker.ping()
        worker.control.shutdown(socket.SHUT_RDWR)
        self.assertEqual(worker.exit_code(), 0)
        self.assertEqual(worker.log(), "")

    def test_signals(self):
        worker = self.worker(self.SCRIPT)
        for number in (signal.SIGINT, signal.SIGTERM):
            worker.process.send_signal(number)
            worker.ping()
        worker.end_links()
        self.assertEqual(worker.exit_code(), 0)

    def test_children_have_signals_as_always(self):
        worker = self.worker(
            """
            import os, signal, subprocess, sys, time
            from quickio import app
            SHOW = "from signal import *; print(getsignal(SIGINT) is default_int_handler, getsignal(SIGTERM) == 0)"
            @app.event("/executed")
            def executed(event):
                return subprocess.check_output([sys.executable, "-I", "-S", "-c", SHOW]).decode()
            @app.event("/forked")
            def forked(event):
                child = os.fork()
                if child == 0: time.sleep(60)
                os.kill(child, signal.SIGTERM)
                return os.waitpid(child, 0)[1]
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b'"True True\\n"'))
        self.assertEqual(worker.ask(2, 1), answer(2, b"%d" % signal.SIGTERM))

    def test_children_of_a_script_that_is_loaded_do_not_hold_the_sockets(self):
        worker = self.worker(
            """
            import os, subprocess, sys
            from quickio import app
            shown = subprocess.check_output([sys.executable, "-I", "-S", "-c", "import os\\nfor fd in (3, 4, 5):\\n"
                " try: os.fstat(fd); print(fd)\\n except OSError: pass"], close_fds=False).decode()
            @app.event("/shown")
            async def get(event): return shown
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b'""'))

    def test_a_thread_that_does_not_end_holds_up_nothing(self):
        worker = self.worker(
            """
            import atexit, sys, threading, time
            from quickio import app
            threading.Thread(target=time.sleep, args=(3600,)).start()
            atexit.register(lambda: print("atexit", file=sys.stderr))
            """
        )
        worker.end_links()
        self.assertEqual(worker.exit_code(), 0)
        self.assertEqual(worker.log(), "atexit\n")

    def test_violations(self):
        for frames, why in (
            ([frame(99)], "unknown frame type 99"),
            ([frame(0)], "unknown frame type 0"),
            ([event(1, 4)], "event number 4, but only 4 events"),
            ([frame(ON, number=1 << 31)], "event number 2147483648, but only 4 events"),
            ([frame(REPLY, request=1, number=7)], "reply to callback 7"),
            ([frame(DROPPED, number=7)], "drop of callback 7"),
            ([struct.pack(">I", 35)], "invalid frame length 35"),
        ):
            worker = self.worker(self.SCRIPT)
            worker.send(*frames)
            self.assertEqual(worker.exit_code(), 1)
            self.assertIn(why, worker.log())

    def test_an_end_within_a_frame(self):
        worker = self.worker(self.SCRIPT)
        worker.send(event(1)[:20])
        worker.end_links()
        self.assertEqual(worker.exit_code(), 1)
        self.assertIn("in the middle of a frame", worker.log())

    def test_a_forked_child_leaves_the_server_alone(self):
        worker = self.worker(
            """
            import os
            from quickio import NotRunning, app
            kept = []
            @app.event("/fork")
            def fork(event):
                kept.append(event.later())
                child = os.fork()
                if child == 0:
                    kept.clear()
                    try:
                        app.broadcast("/child")
                    except NotRunning:
                        app.log("info", "quiet")
                        os._exit(7)
                    os._exit(8)
                _, status = os.waitpid(child, 0)
                kept.pop().answer(os.WEXITSTATUS(status))
                return event.later()
            """
        )
        for request in range(1, 4):
            self.assertEqual(worker.ask(request), answer(request, b"7"))
        worker.ping()


    def test_a_forked_child_that_comes_back_ends(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                import os
                from quickio import app
                ours = os.getpid()
                children = []
                @app.event("/fork")
                {async_}def fork(event):
                    children.append(os.fork())
                    if children[-1]: return
                    if event.data == "exit": exit(7)
                    if event.data == "error": raise OSError("a child")
                @app.event("/more")
                {async_}def more(event):
                    if os.getpid() != ours: os._exit(99)  # a twin
                @app.event("/status")
                {async_}def status(event): return os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1])
                """,
                links=1,
            )
            for data, code in ((b"", 0), (b'"exit"', 7), (b'"error"', 1)):
                worker.send(event(1, data=data), *(event(request, 1) for request in range(2, 20)))
                self.assertEqual(sorted(worker.take(19)), [answer(request) for request in range(1, 20)])
                self.assertEqual(worker.ask(20, 2), answer(20, b"%d" % code))
            self.assertLog(worker, "OSError: a child", "a forked child process")

    def test_a_forked_child_of_the_loop_does_not_read(self):
        worker = self.worker(
            """
            import asyncio, os
            from quickio import app
            @app.event("/fork")
            async def fork(event):
                if os.fork(): return "parent"
                await asyncio.sleep(3600)
            @app.event("/pid")
            async def pid(event): return os.getpid()
            """,
            links=1,
        )
        self.assertEqual(worker.ask(1), answer(1, b'"parent"'))
        own = b"%d" % worker.process.pid
        for request in range(2, 100):
            self.assertEqual(worker.ask(request, 1), answer(request, own))

    def test_a_child_forked_while_the_script_is_loaded_ends_with_it(self):
        worker = self.worker(
            """
            import os
            from quickio import app
            child = os.fork()
            @app.event("/status")
            async def status(event): return os.waitpid(child, 0)[1]
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"0"))


class BackPressure(Case):
    SCRIPT = """
        from quickio import app
        @app.event("/much")
        {async_}def much(event):
            for nth in range(20):
                app.send(event.client, "/much", [event.data, nth, 50000 * "x"])
        """

    def test_a_server_that_does_not_read_for_a_while(self):
        for async_ in ("", "async "):
            worker = self.worker(self.SCRIPT.format(async_=async_), links=1)
            for request in range(1, 21):
                worker.send(event(request, data=b"%d" % request))
                worker.ping()
            # 20 MB wait, and the kernel takes a small part of that.
            for request in range(1, 21):
                for nth in range(20):
                    raw = worker.next()
                    self.assertEqual(json.loads(raw[45:])[:2], [request, nth])
                self.assertEqual(worker.next(), answer(request))
            self.assertEqual(worker.ask(21, data=b"21")[4], SEND)

    def test_more_than_may_wait_in_one_function(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                @app.event("/much")
                {async_}def much(event):
                    for nth in range(10000):
                        app.send(event.client, "/much", [nth, 7500 * "x"])
                """,
                links=1,
            )
            worker.send(event(1))
            for nth in range(10000):
                self.assertTrue(worker.next()[45:].startswith(b"[%d," % nth))
            self.assertEqual(worker.next(), answer(1))

    def test_what_waits_is_bounded_while_threads_write(self):
        worker = self.worker(
            """
            import threading
            from quickio import _output, app
            _output.UNSENT_BYTES_MAX = 1000000
            most, progress = 0, [0] * 4
            @app.event("/much")
            def much(event):
                global most
                for nth in range(200):
                    app.send(event.client, "/much", 50000 * "x")
                    most = max(most, sum(map(len, app._links[0].output._pending)))
                    progress[event.data] = nth
            @app.event("/most")
            async def get(event): return [most, sum(progress)]
            """,
            links=1,
        )
        worker.send(*(event(nth + 1, data=b"%d" % nth, client=(0, nth, 1)) for nth in range(4)))
        worker.take(804)
        most, progress = json.loads(worker.ask(5, 1)[40:])
        self.assertLess(most, 2_000_000)
        self.assertEqual(progress, 4 * 199)

    def test_one_that_never_reads(self):
        script = self.SCRIPT.format(async_="async ") + """
        from quickio import _output
        _output.STALL_TIMEOUT_SECONDS = 0.1
        """
        worker = self.worker(script, links=1)
        try:
            for request in range(1, 101):
                worker.send(event(request))
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.assertEqual(worker.exit_code(), 1)
        self.assertIn("the server has read nothing for 0.1 s", worker.log())


class Misuse(Case):
    """Without a server: what is wrong is said at once."""

    def setUp(self):
        self.app = quickio.App()

    def wrong(self, error, text, function, *args, **more):
        with self.assertRaisesRegex(error, text):
            function(*args, **more)

    def test_events(self):
        app = self.app
        self.wrong(ValueError, "must begin with a slash", app.event, "x")
        self.wrong(ValueError, "is empty", app.event, "/")
        self.wrong(ValueError, "is empty", app.event, "/@@/")
        self.wrong(ValueError, "longer than 1024", app.event, "/" + 1024 * "x")
        self.assertEqual(len(app.event("/" + 1023 * "x").path), 1024)
        self.wrong(ValueError, "is reserved", app.event, "/qio/x")
        self.wrong(ValueError, "is reserved", app.event, "//@qio")
        app.event("/qiox")
        self.wrong(TypeError, "a path must be a str", app.event, b"/x")
        self.wrong(TypeError, "the path is missing", app.event, lambda event: None)
        app.event("/x")
        self.wrong(ValueError, "already registered", app.event, "/x@")

    def test_functions(self):
        app = self.app
        room = app.event("/room")
        for use in (room, room.on, room.off, app.start, app.stop, app.self_test, app.gone):
            self.wrong(TypeError, "expected a function", use, 5)
        for use in (room, room.on, room.off):
            use(len)
            self.wrong(ValueError, "/room already has", use, len)
        self.wrong(ValueError, "cannot have an on-hook", app.event("/x", subscriptions=False).on, len)

    def test_decorators_leave_what_can_be_tested(self):
        @self.app.event("/double")
        def double(event):
            return event.data * 2

        @double.on
        def on(subscription):
            return subscription

        self.assertIsInstance(double, quickio.Registration)
        self.assertEqual(double.handler(type("Event", (), {"data": 4})), 8)
        self.assertEqual(on(5), 5)

    def test_nothing_runs(self):
        app = self.app
        client = quickio.Client(None, (1, 2, 3))
        for use, args in (
            (app.broadcast, ("/x", 1)),
            (app.send, (client, "/x")),
            (app.ask, (client, "/x")),
            (app.close, (client,)),
            (app.move, (client, "x")),
        ):
            self.wrong(quickio.NotRunning, "no server", use, *args)
        self.wrong(TypeError, "must be a Client", app.send, "0.1.2", "/x")
        self.wrong(TypeError, "needs a `callback`", app.send, client, "/x", dropped=print)
        self.assertEqual((app.name, app.instance, app.instances, app.now(), dict(app.settings)), ("", 0, 1, 0.0, {}))

    def test_data(self):
        for bad in (float("nan"), {1, 2}, b"bytes", object(), [float("inf")]):
            for use in (lambda data: self.app.broadcast("/x", data), quickio.Answer):
                with self.assertRaises((TypeError, ValueError)):
                    use(bad)
        loop = []
        loop.append(loop)
        self.wrong(ValueError, "contains itself", quickio.Answer, loop)
        self.wrong(TypeError, "expected a function", quickio.Answer, 1, callback=2)
        self.wrong(ValueError, "at most", quickio.Answer, 17 * 1024 * 1024 * "x")
        for bad in ("[", "NaN", "", "1 2"):
            if bad:
                self.wrong(ValueError, "", quickio.Json, bad)
        self.wrong(TypeError, "a JSON text must be a str", quickio.Json, 5)
        self.assertEqual(quickio.Json('{"a": 1}').parse(), {"a": 1})

    def test_codes(self):
        for code in (0, 200, 65536, -1):
            self.wrong(ValueError, "is not an error code", quickio.Refusal, code)
        for code in ("404", 4.5, True, None):
            self.wrong(TypeError, "an error code must be an int", quickio.Refusal, code)
        self.wrong(TypeError, "a text must be a str", quickio.Refusal, 404, 5)
        self.wrong(TypeError, "not JSON", quickio.Refusal, 404, "x", {1})
        self.assertEqual(str(quickio.Refusal(404, "not there")), "404 not there")

    def test_timers_threads_and_levels(self):
        app = self.app
        for bad in (-1, float("nan"), float("inf"), 1e12):
            self.wrong(ValueError, "seconds", app.after, bad, print)
        self.wrong(ValueError, "a millisecond", app.every, 0, print)
        self.wrong(TypeError, "seconds must be a number", app.after, "1", print)
        self.wrong(TypeError, "expected a function", app.after, 1, None)
        self.wrong(ValueError, "1 to 1000", setattr, app, "threads", 0)
        self.wrong(TypeError, "an int", setattr, app, "threads", 1.5)
        self.wrong(ValueError, "unknown log level", app.log, "fatal", "x")
        self.wrong(TypeError, "must be a str", app.log, "info", 5)

    def test_too_late(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/late")
            async def late(event):
                wrong = []
                for use in (lambda: app.event("/more"), lambda: nothing(print), lambda: nothing.on(print),
                            lambda: app.start(print), lambda: app.gone(print), lambda: setattr(app, "threads", 3)):
                    try:
                        use()
                    except RuntimeError:
                        wrong.append(1)
                return wrong
            nothing = app.event("/nothing")
            @app.event("/ask")
            def ask(event):
                app.ask(event.client, "/x")
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"[1,1,1,1,1,1]"))
        self.assertEqual(worker.ask(2, 2), answer(2, code=500))
        self.assertLog(worker, "RuntimeError")


if __name__ == "__main__":
    unittest.main()
