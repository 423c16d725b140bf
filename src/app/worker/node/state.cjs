// State shared by the parts of the library. There is one application in a process.

'use strict'

const { Timers } = require('./timers.cjs')

const LOADING = 'loading'
const RUNNING = 'running'
const STOPPING = 'stopping'
const STOPPED = 'stopped'

const state = {
  phase: LOADING,
  /** The server's hello. These values apply if the script runs without a server. */
  hello: { app: '', instance: 0, instances: 1, settings: {} },
  /** Registrations by path. Their order gives the events' numbers on the links. */
  registrations: new Map(),
  hooks: { start: [], stop: [], selfTest: [], gone: [] },
  timers: new Timers(),
  /** The links by shard. Empty until the application serves events. */
  links: [],
  control: null,
  /** The server's time in milliseconds, as of the latest frame. */
  now: 0
}

module.exports = { state, LOADING, RUNNING, STOPPING, STOPPED }
