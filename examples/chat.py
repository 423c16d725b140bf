"""A chat: rooms, names that are unique in a room, history, presence, messages to one member with a receipt, statistics.

    quickio --listen 127.0.0.1:8080 --app examples/chat.py

For a client it is the chat of `chat.rs`, whose head has a table of its events.

All rooms are in the memory of this process, and its functions are all async: they run on one loop, and between two
`await`s nobody else is at work, so there is no lock. Run it with one instance: of several, each would have rooms of its
own, and the members of a room would be divided among them.
"""

from collections import deque

from quickio import Refusal, app

HISTORY_MESSAGES_MAX = 50  # that a room keeps for those who come later
TEXT_BYTES_MAX = 2000
NAME_BYTES_MAX = 32
EVENTS_PER_PERIOD_MAX = 20  # of one client
PERIOD_SECONDS = 1

rooms = {}  # by name
totals = {"members": 0, "messages": 0}


class Room:
    """A room lasts while somebody is in it."""

    def __init__(self, name):
        self.path = f"/chat/room/{name}"
        self.members = {}  # names by client
        self.history = deque(maxlen=HISTORY_MESSAGES_MAX)
        self.last = 0  # number of a message

    def member(self, name):
        """The client that has this name here."""
        return next((client for client, taken in self.members.items() if taken == name), None)


@app.event("/chat/room", children=True)
async def say(event):
    """Says something: the room gets it, the answer is its number."""
    name_of_room = segment(event)
    text = checked_text(event, '{"text":STRING} is needed')
    room, name = enter(event, name_of_room)
    room.last += 1
    message = {"id": room.last, "from": name, "text": text}
    room.history.append(message)
    totals["messages"] += 1
    app.broadcast(room.path, message)
    return room.last


@say.on
async def join(subscription):
    """Joins a room, under a name that nobody in it has."""
    name_of_room = segment(subscription)
    name = string(subscription, "name")
    if not name or len(name.encode()) > NAME_BYTES_MAX or is_flooding(subscription.client):
        return False
    room = rooms.get(name_of_room) or Room(name_of_room)
    if room.member(name):
        return False
    app.broadcast(room.path, {"joined": name})
    rooms[name_of_room] = room
    totals["members"] += subscription.client not in room.members
    room.members[subscription.client] = name
    return True


@say.off
async def left(unsubscribed):
    """Left the room, or its connection has ended."""
    leave(segment(unsubscribed), unsubscribed.client)


@app.gone
async def gone(client):
    """A client that went before it had its answer to joining never was subscribed: no off-hook is called."""
    for name_of_room in [name for name, room in rooms.items() if client in room.members]:
        leave(name_of_room, client)


@app.event("/chat/history", children=True, subscriptions=False)
async def history(event):
    """What was said last."""
    room, _ = enter(event, segment(event))
    return list(room.history)


@app.event("/chat/tell", children=True, subscriptions=False)
async def tell(event):
    """Tells one member something, and answers when that member's client has confirmed it."""
    name_of_room = segment(event)
    needed = '{"to":NAME,"text":STRING} is needed'
    to, text = string(event, "to"), checked_text(event, needed)
    if to is None:
        raise Refusal(400, needed)
    room, name = enter(event, name_of_room)
    member = room.member(to)
    if member is None:
        raise Refusal(404, "nobody here has that name")
    later = event.later()

    async def confirmed(_reply):
        later.answer("delivered")

    # Where it is never confirmed the callback is dropped, the promise with it, and the sender is answered 500.
    app.send(member, "/chat/told", {"from": name, "text": text}, callback=confirmed)
    return later


app.event("/chat/stats")  # is for subscribers only, so it has no handler


async def tell_totals():
    app.broadcast("/chat/stats", {"rooms": len(rooms), **totals})


app.every(1, tell_totals)


def leave(name_of_room, client):
    room = rooms.get(name_of_room)
    name = room and room.members.pop(client, None)
    if name:
        totals["members"] -= 1
        app.broadcast(room.path, {"left": name})
        if not room.members:
            del rooms[name_of_room]


# What is checked.


def enter(event, name_of_room):
    """The room, and the sender's name in it. Raises a `Refusal` where the sender is too quick, or not there."""
    if is_flooding(event.client):
        raise Refusal(420, "calm down")
    room = rooms.get(name_of_room)
    if room is None:
        raise Refusal(404, "no such room")
    if event.client not in room.members:
        raise Refusal(401, "join the room first")
    return room, room.members[event.client]


def is_flooding(client):
    """Counts an event of a client; whether it was one too many."""
    now = app.now()
    if now - client.data.get("since", -PERIOD_SECONDS) >= PERIOD_SECONDS:
        client.data.update(since=now, events=0)
    client.data["events"] += 1
    return client.data["events"] > EVENTS_PER_PERIOD_MAX


def segment(event):
    """The one segment of `/rust`."""
    name = event.extra[1:]
    if not name or "/" in name:
        raise Refusal(404, "no such room")
    return name


def string(event, member):
    """A member of the data that is a string."""
    value = event.data.get(member) if isinstance(event.data, dict) else None
    return value if isinstance(value, str) else None


def checked_text(event, needed):
    text = string(event, "text")
    if text is None:
        raise Refusal(400, needed)
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Refusal(400, "the text is too long")
    return text
