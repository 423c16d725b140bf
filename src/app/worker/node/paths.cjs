// Event paths, cleaned as the server cleans them.

'use strict'

const PATH_BYTES_MAX = 1024
const CLEAN = /^(?:\/[\w-]+)+$/

/** Returns a path as the server cleans it. Throws if it is not a valid path. */
function clean(path) {
  if (typeof path !== 'string') throw new TypeError('a path must be a string')
  if (path[0] !== '/') throw new RangeError(`a path must begin with a slash: ${JSON.stringify(path.slice(0, 100))}`)
  const cleaned = CLEAN.test(path) ? path : path.replace(/[^\w\-/]/g, '').replace(/\/+/g, '/').replace(/\/$/, '')
  if (cleaned === '') {
    const start = JSON.stringify(path.slice(0, 100))
    throw new RangeError(`the path is empty: ${start} has none of the letters, digits, - and _ that a path may have`)
  }
  if (cleaned.length > PATH_BYTES_MAX) throw new RangeError(`the path is longer than ${PATH_BYTES_MAX} bytes`)
  return cleaned
}

/** Returns a hash of a path (FNV-1a). Broadcasts to one path always use the same link, which preserves their order. */
function hash(path) {
  let hash = 0x811c9dc5
  for (let at = 0; at < path.length; at++) hash = Math.imul(hash ^ path.charCodeAt(at), 0x01000193)
  return hash >>> 0
}

module.exports = { clean, hash }
