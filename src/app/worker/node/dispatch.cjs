// What comes from the server, frame by frame.

'use strict'

const { Event, FAILED, Reply, Subscription, Unsubscribed, finish, serve } = require('./requests.cjs')
const { state } = require('./state.cjs')
const { FROM_SERVER, HEAD_BYTES, Violation, WANTS_ANSWER, endOfText, timeOf, u32 } = require('./wire.cjs')
const { begin, run } = require('./work.cjs')

const { EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE } = FROM_SERVER

/** Answers the function that takes a link's frames, for an application with these events. */
function dispatcher(registrations) {
  return (link, bytes, at, end) => {
    state.now = Math.max(state.now, timeOf(bytes, at))
    switch (bytes[at + 4]) {
      case EVENT: return event(registrations, link, bytes, at, end)
      case ON: return on(registrations, link, bytes, at, end)
      case OFF: return off(registrations, link, bytes, at, end)
      case REPLY: return reply(link, bytes, at, end)
      case DROPPED: return link.drop(u32(bytes, at + 12))
      case TIMER: return state.timers.fire(u32(bytes, at + 12))
      case GONE: return gone(link, bytes, at)
      default: throw new Violation(`a frame of the type ${bytes[at + 4]}`)
    }
  }
}

function event(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const wantsAnswer = (bytes[at + 5] & WANTS_ANSWER) !== 0
  const client = clientOf(link, bytes, at)
  const [id, extra, data] = [u32(bytes, at + 8), textOf(bytes, at, dataAt), dataOf(bytes, dataAt, end)]
  begin()
  const event = new Event(link, id, client, data, registration, extra, wantsAnswer)
  if (registration.handler === undefined) finish(event, FAILED)
  else serve(event, registration.handler)
}

function on(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const data = dataOf(bytes, dataAt, end)
  const subscription = new Subscription(
    link, u32(bytes, at + 8), clientOf(link, bytes, at), data, registration, textOf(bytes, at, dataAt)
  )
  begin()
  serve(subscription, registration.onHook ?? everyone)
}

const everyone = () => true

function off(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const unsubscribed = new Unsubscribed(clientOf(link, bytes, at), registration, textOf(bytes, at, dataAt))
  if (registration.offHook !== undefined) run(unsubscribed.fullPath, registration.offHook, unsubscribed)
}

function reply(link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const callback = link.redeem(u32(bytes, at + 12))
  const wantsAnswer = (bytes[at + 5] & WANTS_ANSWER) !== 0
  const data = dataOf(bytes, dataAt, end)
  begin()
  callback.run(new Reply(link, u32(bytes, at + 8), clientOf(link, bytes, at), data, callback.what, wantsAnswer))
}

function gone(link, bytes, at) {
  const client = link.clients.forget(u32(bytes, at + 20), u32(bytes, at + 24))
  if (client !== undefined) for (const fn of state.hooks.gone) run('a client that has gone', fn, client)
}

function registrationOf(registrations, bytes, at) {
  const registration = registrations[u32(bytes, at + 12)]
  if (registration === undefined) throw new Violation(`there is no event ${u32(bytes, at + 12)}`)
  return registration
}

function clientOf(link, bytes, at) {
  if (u32(bytes, at + 16) !== link.shard) throw new Violation('a client of another shard')
  return link.clients.find(u32(bytes, at + 20), u32(bytes, at + 24))
}

// Texts are copied, since the bytes are overwritten by what comes next, and what is made here may be kept for long.

function textOf(bytes, at, dataAt) {
  return dataAt - at === HEAD_BYTES ? '' : bytes.toString('utf8', at + HEAD_BYTES, dataAt)
}

function dataOf(bytes, dataAt, end) {
  return dataAt === end ? 'null' : bytes.toString('utf8', dataAt, end)
}

module.exports = { dispatcher }
