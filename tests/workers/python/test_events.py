"""Events and commands."""

import json
import zlib

from support import BOB, BROADCAST, CLOSE, MOVE, SEND, Case, answer, event, frame


class Events(Case):
    """Events: their properties, answers and errors."""

    # Everything that a handler may do, for plain and async handlers.
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

    def for_both_kinds(self, check):
        for async_ in ("", "async "):
            with self.subTest(async_ or "plain"):
                check(self.worker(self.SCRIPT.format(async_=async_)))

    def test_return_values_are_answers(self):
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

        self.for_both_kinds(check)

    def test_invalid_json_is_answered_400(self):
        def check(worker):
            for raw in (b"[", b"NaN", b"[Infinity]", b"\xff", b'"\\ud800"', b"[" * 100000, b"1 2", b"9" * 10000 + b"x"):
                self.assertEqual(worker.ask(1, self.DATA, data=raw), answer(1, code=400, message="invalid JSON"))
            self.assertEqual(worker.log(), "", "invalid JSON is not an error of the application")

        self.for_both_kinds(check)

    def test_errors_are_logged_and_answered_500(self):
        def check(worker):
            for number in (self.ERROR, self.LEAVE, self.NAN, self.UNKNOWN):
                self.assertEqual(worker.ask(1, number), answer(1, code=500))
            self.assert_log(
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

        self.for_both_kinds(check)

    def test_refusals_that_a_subclass_makes_invalid_are_answered_500(self):
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
            # More requests than there are threads.
            for request in range(1, 41):
                worker.send(event(request, data=b"%d" % request, client=(0, request, 1)))
                self.assertEqual(worker.next(), answer(request, code=500))
            self.assertEqual(worker.ask(41, 1, client=(0, 1, 1)), answer(41))
            not_int, not_error = "an error code must be an int, not str", "200 is not an error code"
            self.assert_log(worker, not_int, not_error, "no attribute 'code'", "Frozen")

    def test_an_exception_raised_repeatedly_does_not_collect_tracebacks(self):
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

    def test_an_internal_error_ends_the_worker(self):
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

    def test_errors_are_answered_if_stderr_cannot_be_written(self):
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

    def test_frames_may_be_split_anywhere(self):
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

        self.for_both_kinds(check)

    def test_many_events_may_arrive_in_one_piece(self):
        def check(worker):
            count = 5000
            worker.send(*(event(request, self.RAW, data=b"%d" % request) for request in range(1, count + 1)))
            expected = [answer(request, b"%d" % request) for request in range(1, count + 1)]
            self.assertEqual(worker.take(count), expected, "the answers are in order, because no handler is slow")

        self.for_both_kinds(check)

    def test_events_may_be_long(self):
        def check(worker):
            data = json.dumps("x" * 3_000_000).encode()
            self.assertEqual(worker.ask(1, self.RAW, data=data), answer(1, data))

        self.for_both_kinds(check)

    def test_handlers_may_be_any_callable(self):
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

    def test_handlers_run_in_tasks(self):
        """Functions that need the current task work in a handler from its first step on."""
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
    """Commands to the server: broadcast, send, move, close, log; and the clock."""

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

    def test_commands_send_frames_in_order(self):
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

    def test_any_thread_may_broadcast_and_the_order_is_kept(self):
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
        broadcasts = [json.loads(frame[42:]) for frame in frames]
        for thread in range(4):
            self.assertEqual([nth for sender, nth in broadcasts if sender == thread], list(range(500)))

    def test_the_clock_is_the_servers_and_never_goes_back(self):
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

    def test_log_lines_are_shortened_to_the_limit(self):
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
