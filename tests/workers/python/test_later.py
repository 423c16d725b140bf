"""Promises to answer later."""

from support import Case, answer, event


class Later(Case):
    def test_any_thread_may_answer(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                import threading
                from quickio import NEVER, AlreadyAnswered, Answer, app
                kept = []
                @app.event("/later")
                {async_}def keep(event):
                    kept.append(event.later())
                    return event.later()
                @app.event("/thread")
                {async_}def thread(event):
                    later = event.later()
                    threading.Thread(target=lambda: later.answer([event.data])).start()
                    return later
                @app.event("/finish")
                {async_}def finish(event):
                    first = kept.pop(0)
                    if event.data == "error":
                        first.error(404, "not there", 1)
                    elif event.data == "never":
                        first.answer(NEVER)
                    else:
                        first.answer(Answer(event.data, callback=print))
                    for again in (first.answer, lambda: first.error(500)):
                        try:
                            again()
                        except AlreadyAnswered:
                            pass
                        else:
                            raise SystemError("twice")
                """
            )
            self.assertEqual(worker.ask(1, 1, data=b"7"), answer(1, b"[7]"))
            for request, data, expected in (
                (2, b'"error"', answer(2, b"1", 404, message="not there")),
                (3, b'"never"', answer(3, code=0)),
                (4, b"[]", answer(4, b"[]", number=1)),
            ):
                worker.send(event(request, 0))
                worker.send(event(request + 100, 2, data=data))
                self.assertEqual(sorted(worker.take(2)), sorted([expected, answer(request + 100)]))

    def test_a_dropped_promise_answers_500(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                kept = []
                @app.event("/drop")
                {async_}def drop(event): return event.later()
                @app.event("/keep")
                {async_}def keep(event):
                    kept.append(event.later())
                    return kept[-1]
                @app.event("/clear")
                {async_}def clear(event): kept.clear()
                app.event("/hook")
                """
            )
            self.assertEqual(worker.ask(1, 0), answer(1, code=500))
            worker.send(event(2, 1))
            self.assertEqual([worker.ask(3, 2), worker.next()], [answer(2, code=500), answer(3)])
            self.assertEqual(worker.log(), "")

    def test_a_promise_that_is_not_returned_is_an_error(self):
        worker = self.worker(
            """
            from quickio import app
            kept = []
            @app.event("/forgotten")
            async def forgotten(event): kept.append(event.later())
            @app.event("/other")
            async def other(event): return kept[0]
            @app.event("/raises")
            async def raises(event):
                kept.append(event.later())
                raise OSError
            @app.event("/answered")
            async def answered(event):
                event.later().answer(1)
                raise OSError
            """
        )
        self.assertEqual(worker.ask(1, 0), answer(1, code=500))
        self.assert_log(worker, "it called later(), but did not return the promise: write `return later`")
        self.assertEqual(worker.ask(2, 1), answer(2, code=500))
        self.assert_log(worker, "it returned the promise of another request")
        self.assertEqual(worker.ask(3, 2), answer(3, code=500))
        self.assertEqual(worker.ask(4, 3), answer(4, b"1"))
        self.assertEqual(worker.ask(5, 3), answer(5, b"1"), "the exception came after the answer")

    def test_later_fails_after_the_function_has_returned(self):
        worker = self.worker(
            """
            from quickio import AlreadyAnswered, app
            kept = []
            @app.event("/keep")
            async def keep(event): kept.append(event)
            @app.event("/fail")
            async def fail(event):
                kept.append(event)
                raise OSError
            @app.event("/use")
            async def use(event):
                try:
                    kept.pop().later()
                except AlreadyAnswered:
                    return "too late"
            """
        )
        for number, expected in ((0, answer(1)), (1, answer(1, code=500))):
            self.assertEqual(worker.ask(1, number), expected)
            self.assertEqual(worker.ask(2, 2), answer(2, b'"too late"'))

    def test_one_of_many_racing_threads_answers(self):
        worker = self.worker(
            """
            import threading
            from quickio import AlreadyAnswered, app
            @app.event("/race")
            async def race(event):
                later = event.later()
                def run():
                    try: later.answer("one")
                    except AlreadyAnswered: pass
                for _ in range(4): threading.Thread(target=run).start()
                return later
            """
        )
        for request in range(1, 51):
            self.assertEqual(worker.ask(request), answer(request, b'"one"'))
