"""A chat: rooms, names that are unique in a room, history, presence, messages to one member with a receipt, statistics.

    quickio --listen 127.0.0.1:8080 --app examples/chat.py

Its events are those of `chat.rs`, whose first lines describe them.

All rooms are in the memory of this process. All functions are async: they run on one loop, which switches between them
only at an `await`, so nothing has to be locked. Run it with one instance: several instances would each have their own
rooms, and the members of one room would not find each other.
"""

from collections import deque

from quickio import Refusal, app

HISTORY_MESSAGES_MAX = 50  # kept in each room for members who join later
TEXT_BYTES_MAX = 2000
NAME_BYTES_MAX = 32
EVENTS_PER_PERIOD_MAX = 20  # for each client
PERIOD_SECONDS = 1

rooms = {}  # by name
totals = {"members": 0, "messages": 0}


class Room:
    """A room. It exists while it has members."""

    def __init__(self, name):
        self.path = f"/chat/room/{name}"
        self.members = {}  # names by client
        self.history = deque(maxlen=HISTORY_MESSAGES_MAX)
        self.last = 0  # the number of the latest message

    def member(self, name):
        """Returns the client that has this name in the room, or `None`."""
        return next((client for client, used in self.members.items() if used == name), None)


@app.event("/chat/room", children=True)
async def say(event):
    """Sends a message to the room. The answer is the number of the message."""
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
    """Joins a room under a name that no other member has."""
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
    """Runs when a member has left a room or disconnected."""
    leave(segment(unsubscribed), unsubscribed.client)


@app.gone
async def gone(client):
    """Removes disconnected clients. No off-hook runs for one that disconnects while it is joining."""
    for name_of_room in [name for name, room in rooms.items() if client in room.members]:
        leave(name_of_room, client)


@app.event("/chat/history", children=True, subscriptions=False)
async def history(event):
    """Returns the latest messages."""
    room, _ = enter(event, segment(event))
    return list(room.history)


@app.event("/chat/tell", children=True, subscriptions=False)
async def tell(event):
    """Sends a message to one member, and answers when that member's client has confirmed it."""
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

    # If the client never confirms, the callback is dropped together with the promise, which answers the sender 500.
    app.send(member, "/chat/told", {"from": name, "text": text}, callback=confirmed)
    return later


app.event("/chat/stats")  # without a handler: it is only for subscribers


async def broadcast_totals():
    app.broadcast("/chat/stats", {"rooms": len(rooms), **totals})


app.every(1, broadcast_totals)


def leave(name_of_room, client):
    room = rooms.get(name_of_room)
    name = room and room.members.pop(client, None)
    if name:
        totals["members"] -= 1
        app.broadcast(room.path, {"left": name})
        if not room.members:
            del rooms[name_of_room]


# Checks.


def enter(event, name_of_room):
    """Returns the room and the sender's name in it. Raises a `Refusal` if the sender is too fast or not a member."""
    if is_flooding(event.client):
        raise Refusal(420, "calm down")
    room = rooms.get(name_of_room)
    if room is None:
        raise Refusal(404, "no such room")
    if event.client not in room.members:
        raise Refusal(401, "join the room first")
    return room, room.members[event.client]


def is_flooding(client):
    """Counts an event of a client, and returns whether it exceeds the limit."""
    now = app.now()
    if now - client.data.get("since", -PERIOD_SECONDS) >= PERIOD_SECONDS:
        client.data.update(since=now, events=0)
    client.data["events"] += 1
    return client.data["events"] > EVENTS_PER_PERIOD_MAX


def segment(event):
    """Returns the only segment of a path such as `/rust`."""
    name = event.extra[1:]
    if not name or "/" in name:
        raise Refusal(404, "no such room")
    return name


def string(event, member):
    """Returns a member of the data if it is a string, else `None`."""
    value = event.data.get(member) if isinstance(event.data, dict) else None
    return value if isinstance(value, str) else None


def checked_text(event, needed):
    text = string(event, "text")
    if text is None:
        raise Refusal(400, needed)
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Refusal(400, "the text is too long")
    return text
