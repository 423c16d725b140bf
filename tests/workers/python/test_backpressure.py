"""A server that does not read."""

import json

from support import SEND, Case, answer, event


class BackPressure(Case):
    SCRIPT = """
        from quickio import app
        @app.event("/much")
        {async_}def much(event):
            for nth in range(20):
                app.send(event.client, "/much", [event.data, nth, 50000 * "x"])
        """

    def test_output_waits_while_the_server_does_not_read(self):
        for async_ in ("", "async "):
            worker = self.worker(self.SCRIPT.format(async_=async_), links=1)
            for request in range(1, 21):
                worker.send(event(request, data=b"%d" % request))
                worker.ping()
            # 20 MB are waiting. The kernel accepts a small part of that.
            for request in range(1, 21):
                for nth in range(20):
                    raw = worker.next()
                    self.assertEqual(json.loads(raw[45:])[:2], [request, nth])
                self.assertEqual(worker.next(), answer(request))
            self.assertEqual(worker.ask(21, data=b"21")[4], SEND)

    def test_one_function_may_send_more_than_may_wait(self):
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

    def test_waiting_output_is_bounded_while_threads_write(self):
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

    def test_a_server_that_never_reads_ends_the_worker(self):
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
