// The tables and the texts of values.

const decimal = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })

export const count = (value) => whole.format(value)

/** Returns a rate in three digits or so: 0.4, 12, 3,210, 1.23 M. */
export function rate(value) {
  if (value === null || value === undefined) return '–'
  if (value >= 1e6) return `${decimal.format(value / 1e6)} M`
  if (value >= 1e5) return `${whole.format(value / 1e3)} k`
  return value >= 10 || value === 0 ? whole.format(value) : decimal.format(value)
}

export function bytes(value) {
  if (value === null || value === undefined) return '–'
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), units.length - 1)
  const scaled = value / 1024 ** power
  return `${scaled >= 100 || power === 0 ? whole.format(scaled) : decimal.format(scaled)} ${units[power]}`
}

/** Returns a time given in microseconds. */
export function micros(value) {
  if (value === null || value === undefined) return '–'
  if (value < 1000) return `${whole.format(value)} µs`
  if (value < 1e6) return `${value < 1e4 ? decimal.format(value / 1e3) : whole.format(value / 1e3)} ms`
  return `${decimal.format(value / 1e6)} s`
}

/** Returns a time given in seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–'
  if (seconds < 1) return micros(seconds * 1e6)
  if (seconds < 60) return `${decimal.format(seconds)} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${whole.format(Math.floor(seconds % 60))} s`
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`
}

/** A table whose rows are kept while their items stay, so that the focus and the selection stay too. */
export class Table {
  /** `columns` returns the cells of an item: texts, numbers of a bar (`{ bar }`), or buttons (`{ button, click }`). */
  constructor(id, key, columns) {
    this.body = document.querySelector(`#${id} tbody`)
    this.none = document.getElementById(`${id}-none`)
    this.heads = [...document.querySelectorAll(`#${id} thead th`)]
    this.key = key
    this.columns = columns
    this.rows = new Map()
  }

  show(items) {
    const focused = document.activeElement
    const rows = new Map(items.map((item) => [this.key(item), this.row(item)]))
    for (const [key, row] of this.rows) {
      if (!rows.has(key)) row.remove()
    }
    this.rows = rows
    let place = 0
    for (const row of rows.values()) {
      if (this.body.children[place] !== row) this.body.insertBefore(row, this.body.children[place] ?? null)
      place++
    }
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus()
    if (!this.none) return
    this.none.hidden = items.length > 0
    this.body.closest('.scroll').hidden = !items.length
  }

  row(item) {
    const cells = this.columns(item)
    let row = this.rows.get(this.key(item))
    if (!row) {
      row = document.createElement('tr')
      cells.forEach((cell, index) => row.append(this.cell(cell, index)))
    }
    cells.forEach((cell, index) => this.fill(row.children[index], cell))
    return row
  }

  cell(cell, index) {
    const element = document.createElement(index ? 'td' : 'th')
    if (!index) element.scope = 'row'
    element.className = this.heads[index].className
    if (cell?.button) {
      const button = element.appendChild(document.createElement('button'))
      button.type = 'button'
      button.className = 'link'
      button.addEventListener('click', cell.click)
    }
    if (cell?.bar !== undefined) element.append(bar())
    return element
  }

  fill(element, cell) {
    if (cell?.bar !== undefined) {
      const part = Math.min(Math.max(cell.bar ?? 0, 0), 1)
      element.querySelector('.bar-value').setAttribute('width', `${(part * 100).toFixed(1)}%`)
      setText(element.querySelector('.bar-text'), cell.text)
    } else {
      setText(cell?.button ? element.firstChild : element, cell?.button ?? cell)
    }
  }
}

function setText(element, text) {
  const shown = text ?? '–'
  if (element.textContent !== shown) element.textContent = shown
}

function bar() {
  const NS = 'http://www.w3.org/2000/svg'
  const frame = document.createElement('span')
  frame.className = 'bar'
  const drawing = frame.appendChild(document.createElementNS(NS, 'svg'))
  drawing.setAttribute('aria-hidden', 'true')
  for (const name of ['bar-back', 'bar-value']) {
    const part = drawing.appendChild(document.createElementNS(NS, 'rect'))
    part.setAttribute('class', name)
    part.setAttribute('height', '100%')
    part.setAttribute('width', '100%')
    part.setAttribute('rx', '2')
  }
  frame.appendChild(document.createElement('span')).className = 'bar-text'
  return frame
}

/** Fills a list of facts: pairs of a name and a text. */
export function facts(list, pairs) {
  const parts = pairs.map(([name, text]) => {
    const pair = document.createElement('div')
    pair.appendChild(document.createElement('dt')).textContent = name
    pair.appendChild(document.createElement('dd')).textContent = text
    return pair
  })
  list.replaceChildren(...parts)
}

/** The texts of the counters of refusals. Others whose names look like one are shown by their names. */
const REASONS = {
  connections_refused_limit: 'Connection: clients-max reached',
  connections_refused_address: 'Connection: connections-per-address-max reached',
  proxy_headers_refused: 'Connection: wrong PROXY header',
  handshakes_refused: 'Handshake refused',
  tls_failed: 'TLS handshake failed',
  tls_evicted: 'TLS handshake: too many at once',
  tls_abandoned: 'TLS handshake abandoned by the peer',
  timeouts_handshake: 'Handshake took longer than timeout',
  timeouts_message: 'Message took longer than timeout',
  timeouts_liveness: 'Silent for heartbeat-timeout',
  timeouts_idle: null,
  timeouts_session: null,
  timeouts_send: 'Read nothing for send-timeout',
  timeouts_close: 'Did not complete the closing handshake',
  closes_violation: 'Violated the protocol',
  closes_invalid_utf8: 'Sent a text that is not UTF-8',
  closes_too_large: 'Message too large',
  closes_binary: 'Sent a binary message',
  closes_malformed_event: 'Sent what is not an event',
  closes_slow: 'Outbox full: does not keep up',
  closes_slow_pressed: 'Of these: outboxes-bytes-max reached',
  closes_incomplete: 'Incomplete messages: incomplete-bytes-max reached',
  closes_reset: null,
  closes_by_peer: null,
  closes_by_app: 'Closed by an application',
  closes_shutdown: null,
  http_refused: 'HTTP request refused',
  http_refused_busy: 'HTTP request: server busy',
  http_refused_early: 'HTTP requests out of order: too many',
  sessions_refused: 'HTTP session: limit reached',
  sessions_refused_connection: 'HTTP session: too many for a connection',
  sessions_unknown: 'HTTP session unknown',
  events_unrouted: 'Event: no application handles the path',
  subscriptions_refused_limit: 'Subscription: limit reached',
  subscriptions_refused_app: 'Subscription: refused by an application',
  callbacks_unknown: 'Callback unknown',
  data_refused: 'Application sent what is not JSON',
  mesh_refused: 'Broadcast: another shard is behind',
  inbox_refused: 'Application thread: inbox full',
  inflations_refused: 'Compressed message too large',
  worker_events_refused: 'Event: no worker could take it',
  worker_requests_failed: 'Event: its worker ended',
  worker_requests_timed_out: 'Event: its worker took too long',
  worker_frames_refused: 'Frame of a worker refused'
}

const LOOKS_LIKE_ONE = /(^closes_|^timeouts_|_refused|_failed|_limited|_throttled)/

/** Returns the refusals of an answer that have occurred: the counter, the reason, and the number. */
export function refusalsOf(stats) {
  const server = { admin_logins_failed: stats.server.admin_logins_failed }
  const all = Object.entries({ ...stats.counters, ...server })
  const named = all.filter(([name, value]) => value > 0 && (REASONS[name] || REASONS[name] === undefined && LOOKS_LIKE_ONE.test(name)))
  return named.map(([name, value]) => ({ name, value, reason: REASONS[name] ?? inWords(name) }))
}

function inWords(name) {
  const words = name.replaceAll('_', ' ')
  return words[0].toUpperCase() + words.slice(1)
}
