// The application's script: how it is loaded, which files it consists of, and descriptions of its errors.

'use strict'

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { fileURLToPath, pathToFileURL } = require('node:url')
const { formatThrown } = require('./work.cjs')

/** A location in a stack or a compiler's message, as a path or a URL. Node's own files have neither form. */
const LOCATION = /(?:^|[\s(])(file:\/\/\S+?|\/[^\n]*?):(\d+)(?=[:)\s]|$)/m

async function load(script) {
  await import(pathToFileURL(script).href)
}

/** Returns the script and the files that it has loaded from its folder. `urls` are those of the ES modules resolved. */
function sourceFiles(script, urls) {
  const folder = path.dirname(realPath(script)) + path.sep
  const modules = [...urls].filter((url) => url.startsWith('file:')).map((url) => fileURLToPath(url))
  const isOwn = (file) => file.startsWith(folder) && !file.includes(`${path.sep}node_modules${path.sep}`)
  const others = [...modules, ...Object.keys(require.cache)].filter(isOwn)
  return [...new Set([script, realPath(script), ...others])]
}

/** Returns the files whose creation may remove an error: those that a missing module could have. */
function missingFiles(error) {
  const name = isError(error) ? /^Cannot find (?:module|package) '([^']+)'/.exec(error.message)?.[1] : undefined
  if (name === undefined) return []
  // Node names an ES module by its path, and a CommonJS module as its `require` does.
  const from = error.requireStack?.[0]
  if (!path.isAbsolute(name) && (from === undefined || !name.startsWith('.'))) return []
  const file = path.isAbsolute(name) ? name : path.resolve(path.dirname(from), name)
  return ['', '.js', '.cjs', '.mjs', '.json', `${path.sep}index.js`].map((ending) => file + ending)
}

/** Returns the path with symbolic links resolved, which is how Node names modules. */
function realPath(file) {
  try {
    return fs.realpathSync(file)
  } catch {
    return path.resolve(file) // the file does not exist; loading it reports that
  }
}

/** Returns an error's stack for the log. For a syntax error in an ES module Node does not include the location, so each
 * file is checked for it. */
function formatError(error, files) {
  if (!isError(error)) return formatThrown(error)
  if (error.name === 'SyntaxError' && !/^\S.*:\d+\n/.test(error.stack)) {
    for (const file of files) {
      const { status, stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8', timeout: 10_000 })
      if (status !== 0 && LOCATION.test(stderr)) return stderr.trimEnd()
    }
  }
  return formatThrown(error)
}

/** Returns one line with an error's name, message and location. `trace` is the result of `formatError`. */
function summarizeError(error, trace) {
  if (!isError(error)) return formatThrown(error)
  const what = `${error.name}: ${error.message}`
  const lines = trace.replaceAll(what, '').split('\n')
  const location = LOCATION.exec(lines.filter((line) => !line.includes(__dirname)).join('\n'))
  return location === null ? what : `${what} (${path.basename(location[1])}, line ${location[2]})`
}

/** Returns whether a thrown value is an error whose name, message and stack are texts. */
function isError(error) {
  try {
    return error instanceof Error && [error.name, error.message, error.stack].every((text) => typeof text === 'string')
  } catch {
    return false
  }
}

module.exports = { load, sourceFiles, missingFiles, formatError, summarizeError }
