"""Mistakes in the use of the library, which raise at once, also without a server."""

from support import Case, answer, event

import quickio


class Misuse(Case):
    def setUp(self):
        self.app = quickio.App()

    def assert_error(self, error, text, function, *args, **more):
        with self.assertRaisesRegex(error, text):
            function(*args, **more)

    def test_paths(self):
        app = self.app
        self.assert_error(ValueError, "must begin with a slash", app.event, "x")
        self.assert_error(ValueError, "is empty", app.event, "/")
        self.assert_error(ValueError, "is empty", app.event, "/@@/")
        self.assert_error(ValueError, "longer than 1024", app.event, "/" + 1024 * "x")
        self.assertEqual(len(app.event("/" + 1023 * "x").path), 1024)
        self.assert_error(ValueError, "is reserved", app.event, "/qio/x")
        self.assert_error(ValueError, "is reserved", app.event, "//@qio")
        app.event("/qiox")
        self.assert_error(TypeError, "a path must be a str", app.event, b"/x")
        self.assert_error(TypeError, "the path is missing", app.event, lambda event: None)
        app.event("/x")
        self.assert_error(ValueError, "already registered", app.event, "/x@")

    def test_functions_and_hooks(self):
        app = self.app
        room = app.event("/room")
        for use in (room, room.on, room.off, app.start, app.stop, app.self_test, app.gone):
            self.assert_error(TypeError, "expected a function", use, 5)
        for use in (room, room.on, room.off):
            use(len)
            self.assert_error(ValueError, "/room already has", use, len)
        self.assert_error(ValueError, "cannot have an on-hook", app.event("/x", subscriptions=False).on, len)

    def test_decorated_functions_can_be_called(self):
        @self.app.event("/double")
        def double(event):
            return event.data * 2

        @double.on
        def on(subscription):
            return subscription

        self.assertIsInstance(double, quickio.Registration)
        self.assertEqual(double.handler(type("Event", (), {"data": 4})), 8)
        self.assertEqual(on(5), 5)

    def test_commands_without_a_server(self):
        app = self.app
        client = quickio.Client(None, (1, 2, 3))
        for use, args in (
            (app.broadcast, ("/x", 1)),
            (app.send, (client, "/x")),
            (app.ask, (client, "/x")),
            (app.close, (client,)),
            (app.move, (client, "x")),
        ):
            self.assert_error(quickio.NotRunning, "no server", use, *args)
        self.assert_error(TypeError, "must be a Client", app.send, "0.1.2", "/x")
        self.assert_error(TypeError, "needs a `callback`", app.send, client, "/x", dropped=print)
        self.assertEqual((app.name, app.instance, app.instances, app.now(), dict(app.settings)), ("", 0, 1, 0.0, {}))

    def test_data(self):
        for bad in (float("nan"), {1, 2}, b"bytes", object(), [float("inf")]):
            for use in (lambda data: self.app.broadcast("/x", data), quickio.Answer):
                with self.assertRaises((TypeError, ValueError)):
                    use(bad)
        loop = []
        loop.append(loop)
        self.assert_error(ValueError, "contains itself", quickio.Answer, loop)
        self.assert_error(TypeError, "expected a function", quickio.Answer, 1, callback=2)
        self.assert_error(ValueError, "at most", quickio.Answer, 17 * 1024 * 1024 * "x")
        for bad in ("[", "NaN", "", "1 2"):
            if bad:
                self.assert_error(ValueError, "", quickio.Json, bad)
        self.assert_error(TypeError, "a JSON text must be a str", quickio.Json, 5)
        self.assertEqual(quickio.Json('{"a": 1}').parse(), {"a": 1})

    def test_error_codes(self):
        for code in (0, 200, 65536, -1):
            self.assert_error(ValueError, "is not an error code", quickio.Refusal, code)
        for code in ("404", 4.5, True, None):
            self.assert_error(TypeError, "an error code must be an int", quickio.Refusal, code)
        self.assert_error(TypeError, "a text must be a str", quickio.Refusal, 404, 5)
        self.assert_error(TypeError, "not JSON", quickio.Refusal, 404, "x", {1})
        self.assertEqual(str(quickio.Refusal(404, "not there")), "404 not there")

    def test_timers_threads_and_levels(self):
        app = self.app
        for bad in (-1, float("nan"), float("inf"), 1e12):
            self.assert_error(ValueError, "seconds", app.after, bad, print)
        self.assert_error(ValueError, "a millisecond", app.every, 0, print)
        self.assert_error(TypeError, "seconds must be a number", app.after, "1", print)
        self.assert_error(TypeError, "expected a function", app.after, 1, None)
        self.assert_error(ValueError, "1 to 1000", setattr, app, "threads", 0)
        self.assert_error(TypeError, "an int", setattr, app, "threads", 1.5)
        self.assert_error(ValueError, "unknown log level", app.log, "fatal", "x")
        self.assert_error(TypeError, "must be a str", app.log, "info", 5)

    def test_registration_after_the_start(self):
        worker = self.worker(
            """
            from quickio import app
            @app.event("/late")
            async def late(event):
                errors = []
                for use in (lambda: app.event("/more"), lambda: nothing(print), lambda: nothing.on(print),
                            lambda: app.start(print), lambda: app.gone(print), lambda: setattr(app, "threads", 3)):
                    try:
                        use()
                    except RuntimeError:
                        errors.append(1)
                return errors
            nothing = app.event("/nothing")
            @app.event("/ask")
            def ask(event):
                app.ask(event.client, "/x")
            """
        )
        self.assertEqual(worker.ask(1), answer(1, b"[1,1,1,1,1,1]"))
        self.assertEqual(worker.ask(2, 2), answer(2, code=500))
        self.assert_log(worker, "RuntimeError")
