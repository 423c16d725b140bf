"""Contexts of the application's functions, texts that cannot be printed, and libraries that replace threads."""

import json

from support import ADA, DROPPED, GONE, OFF, ON, REPLY, TIMER, Case, answer, event, frame

VARIABLES = """
import contextvars, decimal
from quickio import Answer, app
own = contextvars.ContextVar("own", default=None)
of_script = contextvars.ContextVar("of_script", default=None)
of_start = contextvars.ContextVar("of_start", default=None)
of_script.set("script")
decimal.getcontext().prec = 11

@app.start
async def start():
    of_start.set("start")
    decimal.getcontext().prec += 1

def found():
    return [own.get(), of_script.get(), of_start.get(), decimal.getcontext().prec]

def leak():
    own.set("leaked")
    of_script.set("leaked")
    of_start.set("leaked")
    decimal.getcontext().prec = 3
"""
BASE = [None, "script", "start", 12]


class Contexts(Case):
    def check_handler(self, handler):
        worker = self.worker(VARIABLES + handler, links=1)
        for request in range(1, 6):
            worker.send(event(request), event(100 + request, client=(0, request, 1)))
            got = sorted(worker.take(2))
            wanted = json.dumps(BASE, separators=(",", ":")).encode()
            self.assertEqual(got, [answer(request, wanted), answer(100 + request, wanted)])

    def test_plain_handlers_have_contexts_of_their_own(self):
        self.check_handler(
            """
@app.event("/a")
def handler(event):
    before = found()
    leak()
    return before
"""
        )

    def test_async_handlers_have_contexts_of_their_own(self):
        self.check_handler(
            """
import asyncio
@app.event("/a")
async def handler(event):
    before = found()
    leak()
    await asyncio.sleep(0)
    return before
"""
        )

    def test_coroutines_of_plain_handlers_have_the_context_of_the_handler(self):
        worker = self.worker(
            VARIABLES
            + """
async def rest():
    return found()
@app.event("/a")
def handler(event):
    before = own.get()
    own.set("mine")
    decimal.getcontext().prec = 5
    assert before is None
    return rest()
""",
            links=1,
        )
        for request in (1, 2):
            worker.send(event(request))
            self.assertEqual(worker.next(), answer(request, b'["mine","script","start",5]'))

    def test_hooks_callbacks_and_timers_have_contexts_of_their_own(self):
        worker = self.worker(
            VARIABLES
            + """
seen = []
def note(what):
    seen.append([what, *found()])
    leak()
@app.event("/a")
def handler(event):
    event.client.data["x"] = 1
    leak()
    app.after(0, lambda: note("timer"))
    app.send(event.client, "/x", callback=lambda reply: None, dropped=lambda: note("dropped"))
    return Answer(callback=lambda reply: note("callback"))
@handler.on
def on(subscription):
    note("on")
    return True
@handler.off
def off(unsubscribed): note("off")
@app.gone
def gone(client): note("gone")
@app.event("/seen")
def get_seen(event): return seen
""",
            links=1,
        )
        worker.send(event(1))
        frames = worker.take(4)
        numbers = {raw[4]: int.from_bytes(raw[12:16], "big") for raw in frames}
        worker.send(
            frame(TIMER, number=numbers[6]),
            frame(REPLY, flags=1, request=2, number=numbers[1], client=ADA),
            frame(DROPPED, number=numbers[3], client=ADA),
            frame(ON, request=3, client=ADA),
            frame(OFF, client=ADA),
            frame(GONE, client=ADA),
        )
        worker.take(2)
        names = []
        for request in range(10, 1000):
            worker.send(event(request, 1, client=(0, 6, 8)))
            seen = json.loads(worker.next()[40:])
            names = sorted(entry[0] for entry in seen)
            if len(names) == 6:
                break
        self.assertEqual(names, ["callback", "dropped", "gone", "off", "on", "timer"])
        for entry in seen:
            self.assertEqual(entry[1:], BASE, entry[0])


class Texts(Case):
    def test_texts_that_are_not_unicode_can_be_printed_and_logged(self):
        worker = self.worker(
            """
            import json, logging, sys
            from quickio import app
            logging.basicConfig(stream=sys.stdout)
            @app.event("/a")
            def handler(event):
                text = json.loads(event.json.text)
                print(text, flush=True)
                print(text, file=sys.stderr)
                logging.error("a record with %s", text)
                app.log("info", text)
                try:
                    raise ValueError(text)
                except ValueError:
                    logging.exception("an exception")
                app.broadcast("/x", text)
                return text
            @app.event("/raise")
            def raises(event):
                raise ValueError(json.loads(event.json.text))
            """,
            links=1,
        )
        for request, data in enumerate((rb'"\ud800"', rb'"\udcff\u0000"', rb'"\u001b[31m\n"')):
            worker.send(event(request, data=data))
            self.assertEqual(worker.line(), {"log": "info", "text": json.loads(data)})
            worker.next()
            self.assertEqual(worker.next(), answer(request, data))
            worker.send(event(100, 1, data=data))
            self.assertEqual(worker.next(), answer(100, code=500))

    def test_exceptions_that_cannot_be_printed_do_not_end_the_worker(self):
        raisings = ("raise ValueError", "raise SystemExit", "raise KeyboardInterrupt", "return 5", "return '\\ud800'")
        for raising in raisings:
            worker = self.worker(
                f"""
                from quickio import app, Refusal
                class Bad(Exception):
                    def __str__(self): {raising}
                    __repr__ = __str__
                class Worse(BaseException):
                    @property
                    def __class__(self): {raising}
                @app.event("/a")
                def plain(event): raise Bad(1)
                @app.event("/b")
                async def coroutine(event): raise Bad(1)
                @app.event("/c")
                def worse(event): raise Worse(1)
                @app.event("/d")
                def cause(event): raise ValueError(1) from Bad()
                @app.event("/ok")
                def ok(event): return "ok"
                @ok.off
                def off(unsubscribed): raise Bad(1)
                """,
                links=1,
            )
            for number in range(4):
                worker.send(event(number, number))
                self.assertEqual(worker.next(), answer(number, code=500), raising)
            worker.send(frame(OFF, number=4, client=ADA), event(9, 4))
            self.assertEqual(worker.next(), answer(9, b'"ok"'), raising)

    def test_exceptions_that_cannot_be_printed_are_reported_as_the_failure_of_a_start(self):
        for raising in ("raise ValueError", "raise SystemExit", "return 5"):
            worker = self.start_worker(
                f"""
                class Bad(Exception):
                    def __str__(self): {raising}
                    __repr__ = __str__
                raise Bad(1)
                """
            )
            self.assertIn("Bad", worker.line()["failed"])


class Patched(Case):
    def test_a_patched_standard_library_is_a_clear_failure_of_the_start(self):
        gevent = {
            "gevent/__init__.py": "",
            "gevent/monkey.py": "patched = set()\ndef patch_all(): patched.update(['socket', 'thread'])\n"
            "def is_module_patched(name): return name in patched\n",
        }
        eventlet = {
            "eventlet/__init__.py": "from eventlet.patcher import monkey_patch\n",
            "eventlet/patcher.py": "patched = set()\ndef monkey_patch(): patched.update(['socket', 'thread'])\n"
            "def is_monkey_patched(name): return name in patched\n",
        }
        for name, patch, files in (
            ("gevent", "from gevent.monkey import patch_all as patch", gevent),
            ("eventlet", "from eventlet import monkey_patch as patch", eventlet),
        ):
            for when in ("patch()", "@app.start\ndef start(): patch()"):
                worker = self.start_worker(f"{patch}\nfrom quickio import app\n{when}\n", files=files)
                failed = worker.line()["failed"]
                self.assertIn(f"{name} has patched the standard library", failed)
                self.assertEqual(worker.process.wait(30), 1)
            # Not patched: only imported.
            self.worker(f"{patch}\nfrom quickio import app\n", files=files)
