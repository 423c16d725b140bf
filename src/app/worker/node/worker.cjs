// The life of a worker: hello, loading the script, ready, serving, shutdown.

'use strict'

const fs = require('node:fs')
const { keepContext } = require('./context.cjs')
const { Control } = require('./control.cjs')
const { makeDispatcher } = require('./dispatch.cjs')
const { Link } = require('./links.cjs')
const { formatError, load, missingFiles, sourceFiles, summarizeError } = require('./script.cjs')
const { RUNNING, STOPPED, STOPPING, state } = require('./state.cjs')
const { logErrorsBy, report, whenIdle } = require('./work.cjs')
const { ProtocolError } = require('./wire.cjs')

/** The version of the protocol of docs/workers.md. */
const VERSION = 1

/** The longest text of a record. JSON escapes turn one character into at most 6 bytes. */
const LOG_TEXT_MAX = 64 * 1024

/** The most files that a report of a failure names. They have to fit into one line of the control socket. */
const FILES_MAX = 1000

/** The process that the server has started: this one, or its parent if the runner had to restart Node. */
const serverChild = process.execArgv.includes('--experimental-loader') ? process.ppid : process.pid

/** Starts the worker. `resolved()` returns the URLs of the ES modules resolved up to now. */
function start(fd, resolved) {
  const control = new Control(fd, { line, ended: () => exitWithGroup(0), failed: exitOnError })
  let hasHello = false
  // The server handles these signals, and ends its workers in order.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})

  function line({ hello, ping }) {
    if (!hasHello) {
      if (hello === undefined) throw new ProtocolError('the first line is not a hello')
      hasHello = true
      main(control, hello, resolved).catch(exitOnError)
    } else if (ping !== undefined) {
      control.send({ pong: ping })
    }
  }
}

/** Exits after the server has disappeared. The worker's process group is killed, too: nothing else would end the
 * processes that the application has started. */
function exitWithGroup(code) {
  const group = state.control === null ? null : ownGroup()
  if (group !== null) process.on('exit', () => process.kill(-group, 'SIGKILL'))
  process.exit(code)
}

/** Returns the process group that the server has created for this worker, or null if it cannot be determined. */
function ownGroup() {
  try {
    const stat = fs.readFileSync('/proc/self/stat', 'utf8')
    const [, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number) // state, parent, group
    return group > 1 && (group === process.pid || group === serverChild) ? group : null
  } catch {
    return null
  }
}

/** Exits after a protocol error of the server, or an error of this library. */
function exitOnError(error) {
  const text =
    error instanceof ProtocolError
      ? `protocol error: ${error.message}; this worker exits`
      : `internal error; this worker exits\n${error.stack}`
  process.stderr.write(`${text}\n`)
  process.exit(1)
}

async function main(control, hello, resolved) {
  if (hello.version !== VERSION) return control.send({ failed: wrongVersion(hello) }, () => process.exit(1))
  state.hello = { ...hello, settings: Object.freeze({ ...hello.settings }) }
  state.control = control
  logErrorsBy((text) => control.send({ log: 'error', text: text.slice(0, LOG_TEXT_MAX) }))
  process.argv[1] = hello.script
  const startup = reportEarlyExit(control)
  const files = () => sourceFiles(hello.script, resolved())
  try {
    await load(hello.script)
    if (!hello.test) await runAll(state.hooks.start)
    sendReady(control, files())
    if (hello.test) await runAll(state.hooks.selfTest)
  } catch (error) {
    startup.done()
    return sendFailed(control, error, files())
  }
  startup.done()
  if (hello.test) return control.send({ tested: true }, () => process.exit(0))
  logRejections()
  serve(hello)
}

function wrongVersion({ version }) {
  const ours = `this library uses version ${VERSION}; use the library that comes with the server`
  return `the server uses version ${version} of the worker protocol, but ${ours}`
}

/** Ensures that the server gets the reason if the script ends the process during startup. */
function reportEarlyExit(control) {
  let fatal = null
  const keep = (error) => (fatal = { error })
  const send = (code) => {
    const ownExit = `the script called exit(${code}); only the server may end a worker`
    control.sendLast({ failed: fatal === null ? ownExit : summarizeError(fatal.error, formatError(fatal.error, [])) })
    process.exitCode = 1
  }
  process.on('uncaughtExceptionMonitor', keep)
  process.on('exit', send)
  const done = () => {
    process.off('uncaughtExceptionMonitor', keep)
    process.off('exit', send)
  }
  return { done }
}

async function runAll(hooks) {
  for (const fn of hooks) await fn()
}

function sendFailed(control, error, files) {
  const trace = formatError(error, files)
  process.stderr.write(`${trace}\n`)
  const watched = [...files, ...missingFiles(error)].slice(0, FILES_MAX)
  control.send({ failed: summarizeError(error, trace), files: watched }, () => process.exit(1))
}

function sendReady(control, files) {
  state.phase = RUNNING
  const events = [...state.registrations.values()]
  control.send({ ready: { version: VERSION, events, timers: state.timers.toReady(), files } })
}

/** Logs unhandled rejections instead of exiting, because an exit would affect all clients of the worker. An application
 * that wants something else adds its own listener. */
function logRejections() {
  if (process.listenerCount('unhandledRejection') > 0) return
  process.on('unhandledRejection', (error) => report('a promise that nothing awaits', error))
}

function serve(hello) {
  keepContext()
  const frame = makeDispatcher([...state.registrations.values()])
  const ended = () => {
    if (state.links.every((link) => link.isEnded)) shutDown()
  }
  state.links = hello.links.map((fd, shard) => new Link(shard, fd, { frame, ended, failed: linkFailed }))
  state.timers.connect(state.links[0])
}

function linkFailed(error) {
  if (error.syscall === undefined) return exitOnError(error)
  // The server has ended or is ending; the end of the control socket follows. No further output can reach it.
  process.stderr.write(`a link to the server failed: ${error.message}; this worker exits\n`)
  exitWithGroup(1)
}

/** Ends the worker after all links have ended. Work in progress is finished first. */
function shutDown() {
  state.phase = STOPPING
  whenIdle(async () => {
    if (state.phase !== STOPPING) return
    state.phase = STOPPED
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
    report('a function of app.stop', error)
  }
}

module.exports = { start }
