// A fake network, page and clock. The test sees every byte that is sent, and triggers every event.

import { createRequire } from 'node:module'
import { FakeClock, settled } from '../suite.mjs'

export const QuickIO = createRequire(import.meta.url)('../../../src/web/quickio.js')

export class FakeSocket {
  sent = []
  closed = false

  constructor(url, protocols) {
    this.url = url
    this.protocols = protocols
  }

  send(text) { this.sent.push(text) }
  close() { this.closed = true }
  // The methods below play the role of the server.
  accept() { this.onopen() }
  completeHandshake() {
    this.accept()
    this.receive('/qio/ohai')
  }
  receive(...texts) { for (const data of texts) this.onmessage({ data }) }
  drop(code = 1006) { this.onclose({ code, reason: '' }) }
  /** Returns the texts that were sent since the last call. */
  takeSent() { return this.sent.splice(0) }
}

/** A request that the test answers. */
export class FakeRequest {
  constructor(url, { method = 'GET', body, headers = {}, signal, keepalive = false }) {
    this.url = new URL(url)
    this.query = Object.fromEntries(this.url.searchParams)
    Object.assign(this, { method, body, headers, keepalive })
    this.response = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }))
    signal?.addEventListener('abort', () => {
      this.aborted = true
      this.reject(new Error('aborted'))
    })
  }

  async answer(...lines) {
    this.resolve({ status: 200, text: async () => lines.join('\n') })
    await settled()
  }

  async refuse(status, headers = {}) {
    this.resolve({ status, headers: new Headers(headers), text: async () => '' })
    await settled()
  }

  async fail() {
    this.reject(new TypeError('fetch failed'))
    await settled()
  }

  /** Starts a response that does not end. */
  async stream(text = '') {
    const body = new ReadableStream({ start: (controller) => { this.controller = controller } })
    this.resolve({ status: 200, body })
    await this.push(text)
  }

  async push(data) {
    this.controller.enqueue(typeof data === 'string' ? new TextEncoder().encode(data) : data)
    await settled()
  }

  async end() {
    this.controller.close()
    await settled()
  }
}

export const SID = /^[0-9a-f]{32}$/
export const HELLO = '/qio/hostname:1=null'
export const LIMIT = (id) => `/qio/limits:${id}=null`
export const HELLO_ANSWER = '/qio/callback/1:0={"code":200,"data":"example.com"}'

/** Creates a client with a fake network, page and clock. */
export async function createClient(options = {}, urls = 'ws://example.com') {
  const clock = new FakeClock()
  const page = Object.assign(new EventTarget(), { document: { visibilityState: 'visible' } })
  const sockets = []
  const requests = []
  const emitted = []
  class Socket extends FakeSocket {
    constructor(...args) {
      super(...args)
      sockets.push(this)
    }
  }
  const fetch = (url, init) => {
    requests.push(new FakeRequest(url, init))
    return requests.at(-1).response
  }
  const qio = new QuickIO(urls, { WebSocket: Socket, fetch, clock, page, random: () => 1, ...options })
  for (const path of ['/open', '/close', '/error', '/transport']) qio.on(path, (data) => emitted.push([path, data]))
  await settled()
  return {
    qio, clock, page, sockets, requests, emitted,
    get socket() { return sockets.at(-1) },
    get request() { return requests.at(-1) },
    events: () => emitted.splice(0).map(([path, data]) => (data instanceof Error ? path : `${path} ${data}`)),
    dispatch(name) { page.dispatchEvent(new Event(name)) }
  }
}

/** Creates a client that is open over WebSocket. */
export async function opened(options, urls) {
  const it = await createClient(options, urls)
  it.socket.completeHandshake()
  it.socket.takeSent()
  it.emitted.splice(0)
  return it
}

/** Creates a client that is open over polls. Its first poll, request number 2, is in flight. */
export async function polling(options = {}, urls) {
  const it = await createClient({ transports: ['poll'], ...options }, urls)
  await it.request.answer(HELLO_ANSWER)
  it.emitted.splice(0)
  return it
}

/** Creates a client that is open over a stream. */
export async function streaming(options = {}, urls) {
  const it = await createClient({ transports: ['stream'], ...options }, urls)
  it.stream = it.request
  await it.stream.stream(': quickio\n\n')
  it.emitted.splice(0)
  return it
}

export const ok = (id, data = null) => `/qio/callback/${id}:0=${JSON.stringify({ code: 200, data })}`
export const limited = (id, bytes) => ok(id, { message_bytes_max: bytes })
export const refused = (id, code) => `/qio/callback/${id}:0=${JSON.stringify({ code, data: null, err_msg: null })}`
