"""Child processes that the application starts or forks."""

import signal

from support import Case, answer, event


class Children(Case):
    def test_children_have_default_signal_handlers(self):
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

    def test_children_started_while_loading_do_not_inherit_the_sockets(self):
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

    def test_a_forked_child_cannot_use_the_server(self):
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

    def test_a_forked_child_that_returns_to_the_library_exits(self):
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
                    if os.getpid() != ours: os._exit(99)  # a copy of the worker
                @app.event("/status")
                {async_}def status(event): return os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1])
                """,
                links=1,
            )
            for data, code in ((b"", 0), (b'"exit"', 7), (b'"error"', 1)):
                worker.send(event(1, data=data), *(event(request, 1) for request in range(2, 20)))
                self.assertEqual(sorted(worker.take(19)), [answer(request) for request in range(1, 20)])
                self.assertEqual(worker.ask(20, 2), answer(20, b"%d" % code))
            self.assert_log(worker, "OSError: a child", "a forked child process")

    def test_a_child_forked_by_an_async_function_does_not_read_the_links(self):
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

    def test_a_child_forked_while_loading_exits_after_the_script(self):
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
