// The application's script: loads it, and says what is wrong with one that cannot be loaded.

'use strict'

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { inspect } = require('node:util')
const { fileURLToPath, pathToFileURL } = require('node:url')

/** A place in a file that a stack or a compiler's message names, as a path or as a URL; Node's own are neither. */
const PLACE = /(?:^|[\s(])(file:\/\/\S+?|\/[^\n]*?):(\d+)(?=[:)\s]|$)/m

async function load(script) {
  await import(pathToFileURL(script).href)
}

/** The script and what it has loaded from its folder; `urls` are of the ES modules that were resolved. */
function filesOf(script, urls) {
  const folder = path.dirname(realPath(script)) + path.sep
  const modules = [...urls].filter((url) => url.startsWith('file:')).map((url) => fileURLToPath(url))
  const isOwn = (file) => file.startsWith(folder) && !file.includes(`${path.sep}node_modules${path.sep}`)
  const others = [...modules, ...Object.keys(require.cache)].filter(isOwn)
  return [...new Set([script, realPath(script), ...others])]
}

/** Node knows modules by their real paths, whatever links led there. */
function realPath(file) {
  try {
    return fs.realpathSync(file)
  } catch {
    return path.resolve(file) // it is not there: that is said elsewhere
  }
}

/** What is to be printed of an error: its stack. Node keeps to itself where the syntax of an ES module is wrong. */
function traceOf(error, files) {
  if (!(error instanceof Error)) return `${inspect(error)} was thrown`
  if (error.name === 'SyntaxError' && !/^\S.*:\d+\n/.test(error.stack)) {
    for (const file of files) {
      const { status, stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8', timeout: 10_000 })
      if (status !== 0 && PLACE.test(stderr)) return stderr.trimEnd()
    }
  }
  return inspect(error)
}

/** An error in one line: what, and where. */
function summaryOf(error, trace) {
  if (!(error instanceof Error)) return `${inspect(error)} was thrown`
  const what = `${error.name}: ${error.message}`
  const lines = trace.replaceAll(what, '').split('\n')
  const place = PLACE.exec(lines.filter((line) => !line.includes(__dirname)).join('\n'))
  return place === null ? what : `${what} (${path.basename(place[1])}, line ${place[2]})`
}

module.exports = { load, filesOf, traceOf, summaryOf }
