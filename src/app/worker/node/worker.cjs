// The life of a worker: hello, the script, ready, serving, and the end.

'use strict'

const fs = require('node:fs')
const { Control } = require('./control.cjs')
const { dispatcher } = require('./dispatch.cjs')
const { Link } = require('./links.cjs')
const { filesOf, load, summaryOf, traceOf } = require('./script.cjs')
const { ENDED, ENDING, RUNNING, state } = require('./state.cjs')
const { report, whenIdle } = require('./work.cjs')
const { Violation } = require('./wire.cjs')

/** Of docs/workers.md. */
const VERSION = 1

/** The process that the server has started, where that has started this one. */
const runner = process.execArgv.includes('--experimental-loader') ? process.ppid : process.pid

/** `resolved()` answers the URLs of the ES modules that were loaded so far. */
function start(fd, resolved) {
  const control = new Control(fd, { line, ended: () => leave(0), broken })
  let isGreeted = false
  // They are for the server, which then ends its workers in order.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})

  function line({ hello, ping }) {
    if (!isGreeted) {
      if (hello === undefined) throw new Violation('the first line is no hello')
      isGreeted = true
      live(control, hello, resolved).catch(broken)
    } else if (ping !== undefined) {
      control.send({ pong: ping })
    }
  }
}

/** The server has gone: nobody else ends what the application has started, which is in the same process group. */
function leave(code) {
  const group = state.control === null ? null : ownGroup()
  if (group !== null) process.on('exit', () => process.kill(-group, 'SIGKILL'))
  process.exit(code)
}

/** The process group that the server has made for this worker. Where that cannot be known there is none. */
function ownGroup() {
  try {
    const stat = fs.readFileSync('/proc/self/stat', 'utf8')
    const [, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number) // state, parent, group
    return group > 1 && (group === process.pid || group === runner) ? group : null
  } catch {
    return null
  }
}

/** Whoever serves us makes no sense. What it wanted cannot be known. */
function broken(error) {
  const what = error instanceof Violation ? error.message : error.stack
  process.stderr.write(`the server does not keep to its protocol: ${what}\n`)
  process.exit(1)
}

async function live(control, hello, resolved) {
  if (hello.version !== VERSION) return control.send({ failed: wrongVersion(hello) }, () => process.exit(1))
  state.hello = { ...hello, settings: Object.freeze({ ...hello.settings }) }
  state.control = control
  process.argv[1] = hello.script
  const untilReady = guard(control)
  const files = () => filesOf(hello.script, resolved())
  try {
    await load(hello.script)
    if (!hello.test) await runAll(state.hooks.start)
    ready(control, files())
    if (hello.test) await runAll(state.hooks.selfTest)
  } catch (error) {
    untilReady.done()
    return fail(control, error, files())
  }
  untilReady.done()
  if (hello.test) return control.send({ tested: true }, () => process.exit(0))
  logRejections()
  serve(hello)
}

function wrongVersion({ version }) {
  return `the server speaks version ${version} of its protocol with workers, and this library speaks ${VERSION}`
}

/** Sees to it that the server is told why, also where the script ends the process. */
function guard(control) {
  let fatal = null
  const note = (error) => (fatal = { error })
  const tell = (code) => {
    const ownEnd = `the script called exit(${code}); only the server may end a worker`
    control.sendLast({ failed: fatal === null ? ownEnd : summaryOf(fatal.error, traceOf(fatal.error, [])) })
    process.exitCode = 1
  }
  process.on('uncaughtExceptionMonitor', note)
  process.on('exit', tell)
  const done = () => {
    process.off('uncaughtExceptionMonitor', note)
    process.off('exit', tell)
  }
  return { done }
}

async function runAll(hooks) {
  for (const fn of hooks) await fn()
}

function fail(control, error, files) {
  const trace = traceOf(error, files)
  process.stderr.write(`${trace}\n`)
  control.send({ failed: summaryOf(error, trace) }, () => process.exit(1))
}

function ready(control, files) {
  state.phase = RUNNING
  const events = [...state.registrations.values()]
  control.send({ ready: { version: VERSION, events, timers: state.timers.inReady(), files } })
}

/** A promise that nobody waits for must not cost all clients their worker. Who wants it otherwise listens himself. */
function logRejections() {
  if (process.listenerCount('unhandledRejection') > 0) return
  process.on('unhandledRejection', (error) => report('a promise was rejected, and nobody waited for it', error))
}

function serve(hello) {
  const frame = dispatcher([...state.registrations.values()])
  const ended = () => {
    if (state.links.every((link) => link.isEnded)) end()
  }
  state.links = hello.links.map((fd, shard) => new Link(shard, fd, { frame, ended, broken: linkBroken }))
  state.timers.begin(state.links[0])
}

function linkBroken(error) {
  if (error.syscall === undefined) return broken(error)
  // The server has gone, or goes: the end of the control socket follows. What is left to say reaches nobody.
  process.stderr.write(`a link has broken: ${error.message}\n`)
  leave(1)
}

/** No more will come. What is under way is done first. */
function end() {
  state.phase = ENDING
  whenIdle(async () => {
    if (state.phase !== ENDING) return
    state.phase = ENDED
    for (const fn of state.hooks.stop) await runStop(fn)
    let open = state.links.length
    for (const link of state.links) {
      link.close(() => {
        if (--open === 0) process.exit(0)
      })
    }
  })
}

async function runStop(fn) {
  try {
    await fn()
  } catch (error) {
    report('app.stop', error)
  }
}

module.exports = { start }
