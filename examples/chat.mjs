// The chat of chat.rs in JavaScript: rooms, names that are unique in a room, history, presence, messages to one member
// with a receipt, statistics. The head of chat.rs says what clients send.
//
//     quickio --listen 127.0.0.1:8080 --app examples/chat.mjs
//
// All rooms are in the memory of this one worker, and all that happens to them happens here, one after the other: there
// is nothing to lock. With more instances than one each would have rooms of its own, and members of one room would not
// find each other: leave `instances` at 1, or keep the rooms in a database.

import { app, Refusal } from 'quickio'

/** Messages that a room keeps for those who come later. */
const HISTORY_MESSAGES_MAX = 50
const TEXT_BYTES_MAX = 2000
const NAME_BYTES_MAX = 32
/** Events that one client may send in each period of so many seconds. */
const EVENTS_PER_PERIOD_MAX = 20
const PERIOD = 1

/** A room lasts while somebody is in it. */
class Room {
  members = new Map() // from clients to names
  history = []
  last = 0

  constructor(name) {
    this.path = `/chat/room/${name}`
  }

  /** Whether the name was free. Who joins may be told, too: a broadcast and a decision go different ways. */
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

// A client whose connection ends while it joins never was subscribed: no off-hook runs for it.
app.gone((client) => [...rooms.keys()].forEach((name) => leave(client, name)))

// ---- Coming and going ----

/** Decides who may subscribe to a room. */
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

// ---- What members do ----

function say(event) {
  const text = textOf(event, 'text', '{"text":STRING} is needed')
  const { room, from } = memberOf(event)
  messages++
  return room.say(from, text)
}

function history(event) {
  return memberOf(event).room.history
}

/** The sender is answered when the other's client has confirmed it; 500 where it never does. */
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

// ---- What all of them check ----

function textOf({ data }, name, needed) {
  const text = data?.[name]
  if (typeof text !== 'string') throw new Refusal(400, needed)
  if (Buffer.byteLength(text) > TEXT_BYTES_MAX) throw new Refusal(400, 'the text is too long')
  return text
}

/** Who has sent an event to which room; who may not is refused. */
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

/** Counts an event of a client; whether it was one too many. */
function isFlooding({ data }) {
  const now = app.now()
  if (!(now - data.periodBegan < PERIOD)) Object.assign(data, { periodBegan: now, events: 0 })
  return ++data.events > EVENTS_PER_PERIOD_MAX
}

/** The one segment of `/rust`. */
function roomName(extra) {
  return /^\/([^/]+)$/.exec(extra)?.[1]
}
