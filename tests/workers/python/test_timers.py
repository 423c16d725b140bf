"""Timers by the server's clock."""

import socket
import time

from support import BROADCAST, CANCEL, DEADLINE_SECONDS, SET_TIMER, TIMER, Case, answer, event, frame


class Timers(Case):
    def test_timers_set_while_loading_start_when_serving(self):
        worker = self.worker(
            """
            from quickio import app
            app.every(1, lambda: app.broadcast("/second"))
            app.after(0.25, lambda: app.broadcast("/early"))
            """,
            links=1,
        )
        self.assertEqual(self.manifest["timers"], [{"timer": 1, "ms": 1000}])
        self.assertEqual(worker.next(), frame(SET_TIMER, number=2, time=250))
        for number, path in ((1, b"/second"), (2, b"/early")):
            worker.send(frame(TIMER, number=number))
            self.assertEqual(worker.next(), frame(BROADCAST, path))

    def test_timers_are_set_and_cancelled(self):
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
        # The timer has fired: a cancel has no effect, and a late frame is ignored.
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

    def test_a_destructor_may_cancel_a_timer_at_any_moment(self):
        worker = self.worker(
            """
            import gc
            from quickio import _timers, app
            class Timer(_timers.Timer):
                def __init__(self, *args):
                    gc.collect()  # the collector may run whenever an object is created
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

    def test_a_run_is_skipped_while_one_is_running(self):
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
            self.assert_log(worker, "OSError: a run", "error in a timer")
            # The timer continues after an error. Runs may be skipped until the failed run has ended.
            deadline = time.monotonic() + DEADLINE_SECONDS
            worker.links[0].settimeout(0.05)
            while time.monotonic() < deadline:
                worker.send(frame(TIMER, number=1))
                try:
                    self.assertEqual(worker.next(), frame(BROADCAST, b"/run"))
                    break
                except socket.timeout:
                    continue
