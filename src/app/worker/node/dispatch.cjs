// Dispatch of the frames that arrive on the links.

'use strict'

const { Event, FAILED, Reply, Subscription, Unsubscribed, finish, serve } = require('./requests.cjs')
const { state } = require('./state.cjs')
const { FROM_SERVER, HAS_INFO, HAS_OPTIONS, HEAD_BYTES, ProtocolError, WANTS_ANSWER, endOfText, timeOf, u32 } =
  require('./wire.cjs')
const { beginWork, run } = require('./work.cjs')

const { EVENT, ON, OFF, REPLY, DROPPED, TIMER, GONE } = FROM_SERVER

/** Returns a function that handles the frames of a link, for an application with these events. */
function makeDispatcher(registrations) {
  return (link, bytes, at, end) => {
    state.now = Math.max(state.now, timeOf(bytes, at))
    switch (bytes[at + 4]) {
      case EVENT: return handleEvent(registrations, link, bytes, at, end)
      case ON: return handleOn(registrations, link, bytes, at, end)
      case OFF: return handleOff(registrations, link, bytes, at, end)
      case REPLY: return handleReply(link, bytes, at, end)
      case DROPPED: return link.drop(u32(bytes, at + 12))
      case TIMER: return state.timers.fire(u32(bytes, at + 12))
      case GONE: return handleGone(link, bytes, at)
      default: throw new ProtocolError(`unknown frame type ${bytes[at + 4]}`)
    }
  }
}

function handleEvent(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const wantsAnswer = (bytes[at + 5] & WANTS_ANSWER) !== 0
  const client = clientOf(link, bytes, at)
  const [id, data] = [u32(bytes, at + 8), dataOf(bytes, dataAt, end)]
  const [extra, info] = textAndInfo(bytes, at, dataAt)
  beginWork()
  const event = new Event(link, id, client, data, registration, extra, info, wantsAnswer)
  if (registration.handler === undefined) finish(event, FAILED)
  else serve(event, registration.handler)
}

function handleOn(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const data = dataOf(bytes, dataAt, end)
  const [extra, options, info] = textOptionsAndInfo(bytes, at, dataAt)
  const [id, client] = [u32(bytes, at + 8), clientOf(link, bytes, at)]
  const subscription = new Subscription(link, id, client, data, registration, extra, options, info)
  beginWork()
  serve(subscription, registration.onHook ?? acceptEveryone)
}

const acceptEveryone = () => true

function handleOff(registrations, link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const registration = registrationOf(registrations, bytes, at)
  const unsubscribed = new Unsubscribed(clientOf(link, bytes, at), registration, textOf(bytes, at, dataAt))
  if (registration.offHook !== undefined) {
    run(`the off-hook of ${unsubscribed.fullPath}`, registration.offHook, unsubscribed)
  }
}

function handleReply(link, bytes, at, end) {
  const dataAt = endOfText(bytes, at, end)
  const callback = link.takeCallback(u32(bytes, at + 12))
  const wantsAnswer = (bytes[at + 5] & WANTS_ANSWER) !== 0
  const data = dataOf(bytes, dataAt, end)
  beginWork()
  callback.onReply(new Reply(link, u32(bytes, at + 8), clientOf(link, bytes, at), data, callback.what, wantsAnswer))
}

function handleGone(link, bytes, at) {
  const client = link.clients.forget(u32(bytes, at + 20), u32(bytes, at + 24))
  for (const fn of state.hooks.gone) run('a function of app.gone', fn, client)
}

function registrationOf(registrations, bytes, at) {
  const number = u32(bytes, at + 12)
  const registration = registrations[number]
  if (registration === undefined) {
    throw new ProtocolError(`event number ${number}, but only ${registrations.length} events are registered`)
  }
  return registration
}

function clientOf(link, bytes, at) {
  if (u32(bytes, at + 16) !== link.shard) throw new ProtocolError('a client of another shard')
  return link.clients.find(u32(bytes, at + 20), u32(bytes, at + 24))
}

// Texts are copied: the next read overwrites the bytes, and the application may keep the objects made here.

function textOf(bytes, at, dataAt) {
  return dataAt - at === HEAD_BYTES ? '' : bytes.toString('utf8', at + HEAD_BYTES, dataAt)
}

/** Returns the rest of the path, and what the server knows of the client, as JSON, if the frame has it. */
function textAndInfo(bytes, at, dataAt) {
  return textAndRest(textOf(bytes, at, dataAt), bytes[at + 5] & HAS_INFO)
}

/** Returns the rest of the path; the options of the subscription, and what the server knows of the client, as JSON, if the
 * frame has them. */
function textOptionsAndInfo(bytes, at, dataAt) {
  const [extra, rest] = textAndRest(textOf(bytes, at, dataAt), bytes[at + 5] & (HAS_OPTIONS | HAS_INFO))
  if ((bytes[at + 5] & HAS_OPTIONS) === 0) return [extra, undefined, rest]
  const [options, info] = textAndRest(rest, bytes[at + 5] & HAS_INFO)
  return [extra, options, info]
}

/** Returns the first line of a text, and what is behind it if there is more. */
function textAndRest(text, hasMore) {
  if (hasMore === 0) return [text, undefined]
  const line = text.indexOf('\n')
  return [text.slice(0, line), text.slice(line + 1)]
}

function dataOf(bytes, dataAt, end) {
  return dataAt === end ? 'null' : bytes.toString('utf8', dataAt, end)
}

module.exports = { makeDispatcher }
