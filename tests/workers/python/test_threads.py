"""The thread pool for plain functions."""

import collections
import json
import random
import threading
import time

from support import ADA, BOB, BROADCAST, DEADLINE_SECONDS, HEAD, Case, answer, event, frame

from quickio import _pool


class Threads(Case):
    def test_a_slow_function_does_not_delay_other_clients(self):
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

    def test_output_of_a_slow_function_is_sent_before_it_ends(self):
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

    def test_functions_for_one_client_run_in_order_and_never_overlap(self):
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

    def test_the_number_of_threads_is_limited(self):
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
        counts, deadline = [], time.monotonic() + DEADLINE_SECONDS
        while len(counts) < 100 or (counts[-1] < 3 and time.monotonic() < deadline):
            counts.append(int(worker.ask(21, 1)[40:]))
        self.assertEqual(max(counts), 3)

    def test_functions_that_wait_briefly_run_concurrently(self):
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
        deadline = time.monotonic() + DEADLINE_SECONDS
        while most < 4 and time.monotonic() < deadline:
            worker.send(*(event(request + nth, client=(0, nth, 1)) for nth in range(1, 501)))
            worker.take(500)
            request += 500
            most = int(worker.ask(request + 501, 1)[40:])
        self.assertGreaterEqual(most, 4)

    def test_each_tick_flushes_the_output_of_quick_functions(self):
        class Loop:
            def call_later(self, seconds, function): pass

        flushed, begun, may_go = [], threading.Event(), threading.Event()

        def run(function, args, outcome):
            function()

        def wait():
            begun.set()
            may_go.wait(DEADLINE_SECONDS)

        pool = _pool.Pool(Loop(), 1, run, lambda: flushed.append(1), set())
        pool.submit([(ADA, int, (), None), (ADA, wait, (), None)])
        self.assertTrue(begun.wait(DEADLINE_SECONDS))
        pool._tick()  # a job has finished since the last tick
        self.assertEqual(flushed, [1])
        may_go.set()

    def test_quick_functions_use_one_thread(self):
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
        # More threads may have been activated if the machine was busy.
        self.assertLessEqual(len(json.loads(worker.ask(1000, 1)[40:])), 3)
