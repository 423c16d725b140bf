// The package for `require`. index.js exports the same objects: Node before 22 cannot `require` an ES module.

'use strict'

const { app } = require('./app.cjs')
const { Client } = require('./client.cjs')
const { Refusal, BadData, AlreadyAnswered, Dropped, NotRunning } = require('./errors.cjs')
const { Json } = require('./json.cjs')
const { Registration } = require('./registration.cjs')
const { Answer, NEVER, Event, Reply, Subscription, Unsubscribed, Later, LaterDecision } = require('./requests.cjs')
const { Timer } = require('./timers.cjs')

module.exports = {
  app,
  Answer,
  Json,
  NEVER,
  Refusal,
  BadData,
  AlreadyAnswered,
  Dropped,
  NotRunning,
  Client,
  Event,
  Later,
  LaterDecision,
  Registration,
  Reply,
  Subscription,
  Timer,
  Unsubscribed
}
