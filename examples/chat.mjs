// The chat of chat.rs in JavaScript: rooms, names that are unique in a room, history, presence, messages to one member
// with a receipt, statistics. The first lines of chat.rs describe the events.
//
//     quickio --listen 127.0.0.1:8080 --app examples/chat.mjs
//
// All rooms are in the memory of this one worker, which handles one event after the other, so nothing has to be locked.
// Several instances would each have their own rooms, and the members of one room would not find each other. Leave
// `instances` at 1, or keep the rooms in a database.

import { app, Refusal } from 'quickio'

/** The number of messages that a room keeps for members who join later. */
const HISTORY_MESSAGES_MAX = 50
const TEXT_BYTES_MAX = 2000
const NAME_BYTES_MAX = 32
/** The most events that one client may send in each period. */
const EVENTS_PER_PERIOD_MAX = 20
const PERIOD_SECONDS = 1

/** A room. It exists while it has members. */
class Room {
  members = new Map() // names by client
  history = []
  last = 0 // the number of the latest message

  constructor(name) {
    this.path = `/chat/room/${name}`
  }

  /** Adds a member, and returns whether the name was free. The new member may also get the broadcast, because it is not
   * ordered with the decision about the subscription. */
  add(client, name) {
    if (this.find(name)) return false
    app.broadcast(this.path, { joined: name })
    this.members.set(client, name)
    return true
  }

  remove(client) {
    const name = this.members.get(client)
    if (this.members.delete(client)) app.broadcast(this.path, { left: name })
  }

  find(name) {
    for (const [client, member] of this.members) if (member === name) return client
  }

  say(from, text) {
    const message = { id: ++this.last, from, text }
    app.broadcast(this.path, message)
    this.history.push(message)
    if (this.history.length > HISTORY_MESSAGES_MAX) this.history.shift()
    return message.id
  }
}

const rooms = new Map()
let messages = 0

app
  .event('/chat/room', { children: true }, say)
  .on(join)
  .off(({ client, extra }) => leave(client, roomName(extra)))
app.event('/chat/history', { children: true, subscriptions: false }, history)
app.event('/chat/tell', { children: true, subscriptions: false }, tell)
app.event('/chat/stats')
app.every(1, () => app.broadcast('/chat/stats', statistics()))

// No off-hook runs for a client that disconnects while it is joining, because it was never subscribed.
app.gone((client) => [...rooms.keys()].forEach((name) => leave(client, name)))

// ---- Joining and leaving ----

/** The on-hook, which decides who may join a room. */
function join({ client, extra, data }) {
  const room = roomName(extra)
  const name = data?.name
  if (!room || typeof name !== 'string' || name === '' || Buffer.byteLength(name) > NAME_BYTES_MAX) return false
  if (isFlooding(client)) return false
  if (!rooms.has(room)) rooms.set(room, new Room(room))
  return rooms.get(room).add(client, name)
}

function leave(client, name) {
  const room = rooms.get(name)
  room?.remove(client)
  if (room?.members.size === 0) rooms.delete(name)
}

// ---- Requests of members ----

function say(event) {
  const text = textOf(event, 'text', '{"text":STRING} is needed')
  const { room, from } = memberOf(event)
  messages++
  return room.say(from, text)
}

function history(event) {
  return memberOf(event).room.history
}

/** Sends a message to one member. The sender is answered when that member's client has confirmed it, or 500 if it never
 * does. */
function tell(event) {
  const [to, text] = ['to', 'text'].map((name) => textOf(event, name, '{"to":NAME,"text":STRING} is needed'))
  const { room, from } = memberOf(event)
  const client = room.find(to)
  if (!client) throw new Refusal(404, 'nobody here has that name')
  const receipt = event.later()
  const callback = () => receipt.answer('delivered')
  const dropped = () => receipt.error(500)
  app.send(client, '/chat/told', { from, text }, { callback, dropped })
  return receipt
}

function statistics() {
  let members = 0
  for (const room of rooms.values()) members += room.members.size
  return { rooms: rooms.size, members, messages }
}

// ---- Checks ----

function textOf({ data }, name, needed) {
  const text = data?.[name]
  if (typeof text !== 'string') throw new Refusal(400, needed)
  if (Buffer.byteLength(text) > TEXT_BYTES_MAX) throw new Refusal(400, 'the text is too long')
  return text
}

/** Returns the room of an event, and the sender's name in it. Throws a Refusal if the sender is not a member. */
function memberOf({ client, extra }) {
  const name = roomName(extra)
  if (!name) throw new Refusal(404, 'no such room')
  if (isFlooding(client)) throw new Refusal(420, 'calm down')
  const room = rooms.get(name)
  if (!room) throw new Refusal(404, 'no such room')
  const from = room.members.get(client)
  if (from === undefined) throw new Refusal(401, 'join the room first')
  return { room, from }
}

/** Counts an event of a client, and returns whether it exceeds the limit. */
function isFlooding({ data }) {
  const now = app.now()
  if (!(now - data.periodBegan < PERIOD_SECONDS)) Object.assign(data, { periodBegan: now, events: 0 })
  return ++data.events > EVENTS_PER_PERIOD_MAX
}

/** Returns the only segment of a path such as `/rust`. */
function roomName(extra) {
  return /^\/([^/]+)$/.exec(extra)?.[1]
}
