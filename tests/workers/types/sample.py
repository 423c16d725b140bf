"""Uses everything that the package exports. `mypy --strict` must find no error, and need each `ignore`."""

from typing import Any, Dict, Optional

from quickio import NEVER, Answer, Client, Dropped, Event, Json, Later, Refusal, Reply, Subscription, Unsubscribed, app

members: Dict[Client, str] = {}


@app.event("/say", children=True, subscriptions=True)
async def say(event: Event) -> Any:
    members[event.client] = str(event.data)
    event.client.data["seen"] = app.now()
    app.broadcast(event.full_path, event.json)
    if event.wants_answer:
        raise Refusal(400, "no", {"extra": event.extra})
    return NEVER


@say.on
def may_join(subscription: Subscription) -> bool:
    options = subscription.options or {}
    return bool(subscription.data == "yes" and options.get("history", 0) <= 20)


@say.off
async def left(unsubscribed: Unsubscribed) -> None:
    members.pop(unsubscribed.client, None)


@app.event("/later")
def later(event: Event) -> Later:
    promise = event.later()
    app.after(0.5, lambda: promise.answer([1, 2.5, None]))
    return promise


@app.event("/ask")
async def ask(event: Event) -> Optional[Answer]:
    try:
        data = await app.ask(event.client, "/you", Json("[1]"))
    except Dropped:
        return None

    def bought(reply: Reply) -> object:
        return reply.data

    return Answer(data, callback=bought)


@app.gone
def gone(client: Client) -> None:
    app.log("info", str(client.data))


timer = app.every(1, lambda: None)
timer.cancel()
greeting: str = app.settings.get("greeting", "") + app.name + str(app.instance + app.instances)

app.close("nobody")  # type: ignore[arg-type]
app.event(7)  # type: ignore[arg-type]
app.greet()  # type: ignore[attr-defined]
