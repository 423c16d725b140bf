"""The start of a worker, and self-tests."""

import json
import os

from support import DEADLINE_SECONDS, Case


class Start(Case):
    """The hello, the loading of the script, and ready."""

    def test_ready_lists_the_registrations(self):
        worker = self.start_worker(
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
        hooks = {"path": "/hooks", "children": False, "handler": True, "subscriptions": "ask", "off": True, "options": True}
        files = [os.path.join(worker.folder.name, name) for name in ("helper.py", "script.py")]
        timers = [{"timer": 1, "ms": 1500}, {"timer": 3, "ms": 1}]
        expected = {"version": 1, "events": [room, plain, hooks], "timers": timers, "files": files}
        self.assertEqual(worker.ready(), expected)

    def test_app_has_the_values_of_the_hello(self):
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

    def test_a_script_may_have_no_events(self):
        worker = self.worker("")
        self.assertEqual(self.manifest["events"], [])
        worker.end_links()
        self.assertEqual(worker.exit_code(), 0)

    def test_a_failure_names_the_files_that_may_contain_it(self):
        files = {
            "good.py": "",
            "bad.py": "import good\nfrom inner import missing",
            "syntax.py": "(",
            "inner/__init__.py": "",
            "inner/missing.py": "import nowhere.at_all",
        }
        for text, expected in [
            ("import good, syntax", {"good.py", "syntax.py"}),
            ("import bad", {"good.py", "bad.py", "inner/__init__.py", "inner/missing.py", "nowhere.py"}),
        ]:
            worker = self.start_worker(text, files=files)
            found = {os.path.relpath(file, worker.folder.name) for file in worker.line()["files"]}
            self.assertLessEqual(expected | {"script.py"}, found)
            self.assertEqual(worker.exit_code(), 1)

    def fails(self, text, why, log=None, **options):
        worker = self.start_worker(text, **options)
        line = worker.line()
        self.assertEqual(line["failed"], why)
        if options.get("version", 1) == 1 and "script" not in options:
            self.assertIn(worker.script, line["files"])
        self.assertEqual(worker.exit_code(), 1)
        if log is not None:
            self.assertIn(log, worker.log())
        self.assertNotIn("_worker.py", worker.log())
        return worker.log()

    def test_reports_a_syntax_error(self):
        why = "SyntaxError: invalid syntax (script.py, line 2)"
        self.assertNotIn("Traceback", self.fails("x = 1\nx = = 2\n", why, 'script.py", line 2').split("File")[0][40:])

    def test_reports_an_exception(self):
        log = self.fails("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero (script.py, line 2)")
        self.assertIn("Traceback (most recent call last):", log)
        self.assertIn("return 1 / 0", log)

    def test_reports_an_exception_in_an_imported_module(self):
        files = {"helper.py": "import nonsense_that_is_not_there\n"}
        why = "ModuleNotFoundError: No module named 'nonsense_that_is_not_there' (helper.py, line 1)"
        self.fails("import helper\n", why, files=files)

    def test_reports_a_script_that_exits(self):
        log = self.fails("import sys; sys.exit(3)", "the script called exit(3); only the server may end a worker")
        self.assertEqual(log, "")
        self.fails("exit()", "the script called exit(); only the server may end a worker")

    def test_reports_a_missing_script(self):
        why = "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere.py'"
        self.fails("", why, script="/nowhere.py")

    def test_reports_misuse_while_the_script_is_loaded(self):
        script = "from quickio import app\napp.event('/x')\napp.event('/x/')\n"
        self.fails(script, "ValueError: /x is already registered (script.py, line 3)")

    def test_rejects_another_protocol_version(self):
        ours = "this library uses version 1; use the library that comes with the server"
        why = f"the server uses version 2 of the worker protocol, but {ours}"
        self.fails("print('never')", why, version=2)

    def test_start_hooks_run_before_ready_and_may_fail(self):
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
        worker = self.start_worker(script)
        self.assertEqual(worker.line(), {"log": "info", "text": "plain"})
        self.assertEqual(worker.line(), {"log": "warn", "text": "async"})
        worker.ready()
        failing = "from quickio import app\n@app.start\ndef start():\n    raise OSError('no database')\n"
        self.fails(failing, "OSError: no database (script.py, line 4)")

    def test_commands_fail_before_ready(self):
        script = """
            from quickio import app
            app.broadcast("/x")
            """
        why = "there is no server: call this from a handler, hook, callback or timer that the server runs"
        self.fails(script, f"NotRunning: {why} (script.py, line 3)")

    def test_a_hello_without_links_ends_the_worker(self):
        worker = self.start_worker("", links=0)
        worker.process.wait(DEADLINE_SECONDS)
        self.assertEqual(worker.exit_code(), 1)
        self.assertIn("the hello names no links", worker.log())


class SelfTest(Case):
    """`quickio test-app`."""

    SCRIPT = """
        from quickio import app
        @app.start
        def start(): raise SystemError("it does not serve")
        app.event("/x")
        @app.self_test
        async def check():
            %s
        """

    def test_passes(self):
        worker = self.worker(self.SCRIPT % "pass", links=0, test=True)
        self.assertEqual(self.manifest["events"][0]["path"], "/x")
        self.assertEqual(worker.line(), {"tested": True})
        self.assertEqual(worker.exit_code(), 0)

    def test_fails(self):
        worker = self.worker(self.SCRIPT % "raise ValueError('a template is missing')", links=0, test=True)
        self.assertEqual(worker.line()["failed"], "ValueError: a template is missing (script.py, line 8)")
        self.assertEqual(worker.exit_code(), 1)
