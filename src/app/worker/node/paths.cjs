// Paths of events, cleaned as the server cleans them.

'use strict'

const PATH_BYTES_MAX = 1024
const CLEAN = /^(?:\/[\w-]+)+$/

/** A path as the server knows it. Throws where it is none. */
function clean(path) {
  if (typeof path !== 'string') throw new TypeError('a path is a string')
  if (path[0] !== '/') throw new RangeError(`a path begins with a slash: ${JSON.stringify(path.slice(0, 100))}`)
  const cleaned = CLEAN.test(path) ? path : path.replace(/[^\w\-/]/g, '').replace(/\/+/g, '/').replace(/\/$/, '')
  if (cleaned === '') throw new RangeError(`nothing is left of the path ${JSON.stringify(path.slice(0, 100))}`)
  if (cleaned.length > PATH_BYTES_MAX) throw new RangeError(`a path has ${PATH_BYTES_MAX} bytes at most`)
  return cleaned
}

/** A number that is always the same for a path (FNV-1a): broadcasts to it keep to one link, and so their order. */
function hash(path) {
  let hash = 0x811c9dc5
  for (let at = 0; at < path.length; at++) hash = Math.imul(hash ^ path.charCodeAt(at), 0x01000193)
  return hash >>> 0
}

module.exports = { clean, hash }
