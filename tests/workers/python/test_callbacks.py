"""Callbacks that clients reply to, and `app.ask`."""

from support import ADA, ANSWER, BOB, BROADCAST, DROPPED, REPLY, SEND, Case, answer, event, frame


class Callbacks(Case):
    def test_callbacks_answer_replies(self):
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
            self.assert_log(worker, "error in a callback")

    def test_dropped_callbacks_are_reported(self):
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
            self.assert_log(worker, "OSError: dropped", "a `dropped` function")
            # A promise is dropped together with the callback that holds it.
            self.assertEqual(worker.ask(3, 1), frame(SEND, b"/told", number=3, client=ADA))
            worker.send(frame(DROPPED, number=3))
            self.assertEqual(worker.next(), answer(3, code=500))
            self.assertEqual(worker.ask(4, 1), frame(SEND, b"/told", number=4, client=ADA))
            worker.send(frame(REPLY, request=5, number=4, client=ADA))
            self.assertEqual(sorted(worker.take(2)), sorted([answer(4, b'"delivered"'), answer(5)]))

    def test_dropped_runs_in_order_with_the_clients_other_functions(self):
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

    def test_ask_returns_the_reply(self):
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
        self.assertEqual(worker.log(), "", "a client that does not reply is not an error of the application")

    def test_a_late_reply_to_ask_is_answered_and_ignored(self):
        worker = self.worker(self.ASK)
        worker.send(event(1, 1), event(2, 1))
        frames = worker.take(4)
        self.assertEqual([raw for raw in frames if raw[4] == ANSWER], [answer(n, b'"given up"') for n in (1, 2)])
        worker.send(frame(REPLY, request=3, number=1, client=ADA), frame(DROPPED, number=2))
        self.assertEqual(worker.next(), answer(3))
        self.assertEqual(worker.log(), "")

    def test_nothing_is_kept_after_a_reply(self):
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
        # The event that is being handled, and its request.
        self.assertEqual(worker.ask(300, 1), answer(300, b"[0,1,0,1,0]"))
