// A client of TLS in Node: both versions, orderly ends, and HTTPS. Arguments: port, file of the authority.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import https from 'node:https'

const [port, file] = process.argv.slice(2)
const ca = readFileSync(file)
const server = { host: '127.0.0.1', servername: 'localhost', port, ca }

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  const socket = tls.connect({ ...server, minVersion: version, maxVersion: version })
  await once(socket, 'secureConnect')
  assert.equal(socket.getProtocol(), version)
  socket.write('/qio/ohai')
  const [greeting] = await once(socket, 'data')
  assert.equal(String(greeting), '/qio/ohai')
  socket.end()
  const [failed] = await once(socket, 'close')
  assert.equal(failed, false)
}

const agent = new https.Agent({ keepAlive: true })
for (let nth = 0; nth < 3; nth += 1) {
  const [response] = await once(https.get({ ...server, path: '/quickio.js', agent }), 'response')
  let text = ''
  for await (const part of response) text += part
  assert.equal(response.statusCode, 200)
  assert.match(text, /QuickIO/)
}
agent.destroy()
console.log('ok')
