"""The end of a worker: regular, by signals, and by errors of the server."""

import signal
import socket
import struct

from support import ADA, BOB, BROADCAST, DROPPED, ON, REPLY, SEND, Case, answer, event, frame


class Shutdown(Case):
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
                # No reply can arrive now, and a new question fails at once.
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

    def test_requests_in_progress_are_finished(self):
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

    def test_tasks_of_the_application_are_cancelled_and_can_clean_up(self):
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

    def test_the_worker_serves_until_all_links_have_ended(self):
        worker = self.worker(self.SCRIPT)
        worker.links[0].shutdown(socket.SHUT_WR)
        worker.ping()
        worker.send(event(1, 2, client=BOB), event(2, 3, client=BOB), link=1)
        self.assertEqual(worker.next(1), frame(SEND, b"/question", number=1, client=BOB))
        worker.links[1].shutdown(socket.SHUT_WR)
        self.assertEqual(worker.exit_code(), 0)

    def test_the_end_of_the_control_socket_ends_the_worker(self):
        worker = self.worker(self.SCRIPT)
        worker.send(event(1, 0), event(2, 1), event(3, 2))
        worker.ping()
        worker.control.shutdown(socket.SHUT_RDWR)
        self.assertEqual(worker.exit_code(), 0)
        self.assertEqual(worker.log(), "")

    def test_signals_are_ignored(self):
        worker = self.worker(self.SCRIPT)
        for number in (signal.SIGINT, signal.SIGTERM):
            worker.process.send_signal(number)
            worker.ping()
        worker.end_links()
        self.assertEqual(worker.exit_code(), 0)

    def test_a_thread_that_does_not_end_does_not_delay_the_exit(self):
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

    def test_protocol_errors_end_the_worker(self):
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

    def test_an_incomplete_frame_ends_the_worker(self):
        worker = self.worker(self.SCRIPT)
        worker.send(event(1)[:20])
        worker.end_links()
        self.assertEqual(worker.exit_code(), 1)
        self.assertIn("in the middle of a frame", worker.log())
