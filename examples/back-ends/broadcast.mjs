// Broadcasts an event by the server API, in Node. docs/server-api.md describes the API.
import { readFileSync } from 'node:fs'

const api = process.env.API ?? 'http://127.0.0.1:8090'
const key = readFileSync(process.env.KEY_FILE ?? '/etc/quickio/shop.key', 'utf8').trim()
const response = await fetch(`${api}/broadcast`, {
  method: 'POST',
  headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
  body: JSON.stringify([{ path: '/relay/news', data: { from: 'Node' } }]),
})
if (!response.ok) throw new Error(await response.text())
process.stdout.write(await response.text())
