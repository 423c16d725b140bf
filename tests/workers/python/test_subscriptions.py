"""On-hooks and off-hooks."""

from support import ADA, BROADCAST, OFF, ON, Case, answer, event, frame


class Subscriptions(Case):
    SCRIPT = """
        import asyncio
        from quickio import NEVER, Refusal, app
        kept = []
        async def generator(): yield
        others = {{"nothing": None, "never": NEVER, "generator": generator(), "one": 1, "text": "no"}}
        others["future"] = asyncio.get_event_loop_policy().get_event_loop().create_future()
        room = app.event("/room", children=True)
        @room.on
        {async_}def on(subscription):
            data = subscription.data
            if data == "later":
                kept.append(subscription.later())
                return kept[-1]
            if data == "drop": return subscription.later()
            if isinstance(data, str) and data in others: return others[data]
            if data == "refusal": raise Refusal(420, "full")
            if data == "error": raise OSError
            return data == [subscription.path, subscription.extra, subscription.full_path]
        @room.off
        {async_}def off(unsubscribed):
            app.broadcast("/off", [unsubscribed.full_path, unsubscribed.extra, unsubscribed.client.id])
        @app.event("/decide")
        {async_}def decide(event):
            if event.data:
                kept.pop().accept()
            else:
                kept.pop().refuse()
        app.event("/no_hook")
        """

    OTHERS = (b"nothing", b"never", b"generator", b"one", b"text", b"future")

    def on(self, request, data, number=0):
        return frame(ON, b"/x", data, request=request, number=number, client=ADA)

    def test_hooks_decide_and_are_notified(self):
        for async_ in ("", "async "):
            worker = self.worker(self.SCRIPT.format(async_=async_), links=1)
            for data, expected in (
                (b'["/room","/x","/room/x"]', answer(1)),
                (b"", answer(1, code=401)),
                *((b'"%s"' % other, answer(1, code=500)) for other in self.OTHERS),
                (b'"drop"', answer(1, code=500)),
                (b'"refusal"', answer(1, code=420, message="full")),
                (b"[", answer(1, code=400, message="invalid JSON")),
                (b'"error"', answer(1, code=500)),
            ):
                worker.send(self.on(1, data))
                self.assertEqual(worker.next(), expected, data)
            self.assert_log(worker, "the on-hook of /room", "True, False or its promise, not Never")
            for data, code in ((b"true", 200), (b"false", 401)):
                worker.send(self.on(2, b'"later"'))
                worker.send(event(3, 1, data=data))
                self.assertEqual(sorted(worker.take(2)), sorted([answer(2, code=code), answer(3)]))
            worker.send(frame(OFF, b"/x", client=ADA))
            self.assertEqual(worker.next(), frame(BROADCAST, b"/off", b'["/room/x","/x","0.5.7"]'))
            # The server must not send ON and OFF for an event without hooks. They are answered and ignored.
            worker.send(self.on(4, b"", number=2), frame(OFF, number=2, client=ADA))
            self.assertEqual(worker.next(), answer(4, code=500))

    def test_hooks_see_the_options(self):
        worker = self.worker(
            """
            from quickio import app
            room = app.event("/room", children=True)
            @room.on
            def on(subscription):
                wanted = subscription.options
                app.broadcast("/seen", [subscription.extra, wanted])
                return wanted is None or wanted.get("history", 0) <= 20
            """,
            links=1,
        )
        for flags, text, seen, code in (
            (0, b"/x", b'["/x",null]', 200),
            (8, b'/x\n{"history":20,"since":"e7f3.1041"}', b'["/x",{"history":20,"since":"e7f3.1041"}]', 200),
            (8, b'\n{"history":21}', b'["",{"history":21}]', 401),
        ):
            worker.send(frame(ON, text, flags=flags, request=1, client=ADA))
            self.assertEqual(worker.take(2), [frame(BROADCAST, b"/seen", seen), answer(1, code=code)])

    def test_an_error_in_the_off_hook_is_logged(self):
        for async_ in ("", "async "):
            worker = self.worker(
                f"""
                from quickio import app
                room = app.event("/room")
                @room.off
                {async_}def off(unsubscribed): raise OSError("off")
                """
            )
            worker.send(frame(OFF, client=ADA))
            self.assert_log(worker, "OSError: off", "the off-hook of /room")
