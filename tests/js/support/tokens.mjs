// The settings of a server whose clients have to authenticate, and tokens for it.

import { createHmac } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const SECRET = '0123456789abcdef0123456789abcdef'
const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** Returns the file of the settings. */
export function settingsFile() {
  const folder = mkdtempSync(join(tmpdir(), 'quickio-tokens-'))
  writeFileSync(join(folder, 'secret'), SECRET, { mode: 0o600 })
  const key = `[[auth-keys]]\nid = "a"\nalgorithm = "HS256"\nsecret-file = "${join(folder, 'secret')}"\n`
  writeFileSync(join(folder, 'quickio.toml'), `auth = "required"\nauth-leeway = "0s"\n${key}`)
  return join(folder, 'quickio.toml')
}

/** Returns a token of a user that is valid for so many seconds. */
export function tokenOf(user, seconds) {
  const expires = Math.floor(Date.now() / 1000) + seconds
  const message = `${part({ alg: 'HS256', kid: 'a' })}.${part({ sub: user, exp: expires })}`
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`
}
