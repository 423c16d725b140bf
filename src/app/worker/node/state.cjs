// What the parts of the library share: there is one application in a process.

'use strict'

const { Timers } = require('./timers.cjs')

const LOADING = 'loading'
const RUNNING = 'running'
const ENDING = 'ending'
const ENDED = 'ended'

const state = {
  phase: LOADING,
  /** What the server has told of the worker; outside of one nothing has. */
  hello: { app: '', instance: 0, instances: 1, settings: {} },
  /** By path, in the order of their numbers on the links. */
  registrations: new Map(),
  hooks: { start: [], stop: [], selfTest: [], gone: [] },
  timers: new Timers(),
  links: [],
  control: null,
  /** Milliseconds since the server began. */
  now: 0
}

module.exports = { state, LOADING, RUNNING, ENDING, ENDED }
