// The operator's page: puts the values of the server into the charts and tables.

import { LineChart } from './charts.js'
import { SHOWN_MS, Source, get } from './source.js'
import { Table, bytes, count, duration, facts, micros, rate, refusalsOf } from './tables.js'

const find = (id) => document.getElementById(id)
const MINUTE_MS = 60_000

/** The samples of the time that is shown. */
let samples = []

const charts = [
  new LineChart('chart-rates', [
    { key: 'deliveries', name: 'deliveries' },
    { key: 'events', name: 'events' }
  ], 'linear', rate),
  new LineChart('chart-delivery', [
    { key: 'p50', name: 'p50' },
    { key: 'p99', name: 'p99' },
    { key: 'p999', name: 'p99.9' }
  ], 'log', micros),
  new LineChart('chart-clients', [
    { key: 'websocket', name: 'WebSocket' },
    { key: 'raw', name: 'raw' },
    { key: 'stream', name: 'streams' },
    { key: 'polling', name: 'polls' }
  ], 'linear', rate),
  new LineChart('chart-memory', [
    { key: 'rss', name: 'process' },
    { key: 'outboxes', name: 'outboxes' },
    { key: 'history', name: 'history' }
  ], 'bytes', bytes)
]

const tables = {
  shards: new Table('shards', ({ index }) => index, (shard) => [
    String(shard.index),
    { bar: shard.busy, text: shard.busy === null ? '–' : `${(shard.busy * 100).toFixed(shard.busy < 0.1 ? 1 : 0)} %` },
    count(shard.clients),
    rate(shard.events),
    rate(shard.deliveries),
    bytes(shard.outboxes)
  ]),
  transports: new Table('transports', ({ name }) => name, ({ name, value, part }) => [
    name,
    { bar: part, text: '' },
    count(value)
  ]),
  paths: new Table('paths', ({ path }) => path, (busy) => [
    busy.path,
    rate(busy.broadcasts_per_second) + (busy.uncertainty > 0.1 * busy.broadcasts_per_second ? '+' : ''),
    count(busy.subscribers),
    rate(busy.broadcasts_per_second * busy.subscribers)
  ]),
  clients: new Table('clients', ({ id }) => id, (client) => [
    { button: client.id, click: () => show(client.id) },
    bytes(client.outbox_bytes),
    stalled(client) ?? '–',
    transport(client),
    client.address,
    client.user
  ]),
  refusals: new Table('refusals', ({ name }) => name, ({ reason, recent, value }) => [
    reason,
    count(recent),
    count(value)
  ]),
  workers: new Table('workers', (worker) => `${worker.app} ${worker.instance} ${worker.pid}`, (worker) => [
    `${worker.app} ${worker.instance}`,
    worker.restart_in_seconds === null ? worker.state : `starts in ${duration(worker.restart_in_seconds)}`,
    duration(worker.serving_seconds),
    worker.pid === null ? '–' : String(worker.pid),
    count(worker.restarts),
    count(worker.crashes)
  ])
}

const TRANSPORTS = { websocket: 'WebSocket', raw: 'raw TCP', stream: 'event stream', polling: 'long polling' }

function transport({ transport, tls, compressed }) {
  return [TRANSPORTS[transport] ?? transport, tls && 'TLS', compressed && 'compressed'].filter(Boolean).join(', ')
}

/** The time in seconds from which on a client that reads nothing is worth a word. */
const STALLED_MIN = 0.5

/** Returns how long a client has read nothing of what was sent to it, or null if it reads. */
function stalled({ stalled_seconds: seconds }) {
  return seconds !== null && seconds >= STALLED_MIN ? duration(seconds) : null
}

const source = new Source({
  sample(sample) {
    setState('live', source.isPaused ? 'Paused' : 'Live')
    find('problem').hidden = true
    samples = [...samples, sample].filter(({ at }) => at > sample.at - SHOWN_MS - 5000)
    draw(sample)
    if (dialog.open) refreshClient()
  },
  clients: (list) => tables.clients.show(list),
  paths: (list) => tables.paths.show(list.filter((busy) => busy.broadcasts_per_second >= 0.05)),
  workers(list) {
    tables.workers.show(list)
    const crashes = list.reduce((sum, { crashes }) => sum + crashes, 0)
    find('workers-note').textContent = list.length ? `${list.length} running or due, ${count(crashes)} crashed` : ''
  },
  failed(error) {
    setState('lost', error.status ? `Refused (${error.status})` : 'No answer')
    find('problem').textContent = `${error.message} The values below are the last ones; this page goes on asking.`
    find('problem').hidden = false
  }
})

function setState(state, text) {
  find('state').dataset.state = source.isPaused ? 'paused' : state
  find('state-text').textContent = text
}

function draw(sample) {
  const { stats } = sample
  const { server, process, gauges } = stats
  charts.forEach((chart) => chart.draw(samples))
  const refusals = refusalsOf(stats).map((refusal) => ({ ...refusal, recent: lastMinute(refusal, sample) }))
  refusals.sort((one, other) => other.recent - one.recent || other.value - one.value)
  const texts = {
    server: [`version ${server.version}`, `up ${duration(process.uptime_seconds)}`, server.listen.join(', ')].join(' · '),
    'now-clients': count(gauges.clients),
    'now-events': rate(sample.events),
    'now-deliveries': rate(sample.deliveries),
    'now-p99': micros(sample.p99),
    'now-memory': bytes(sample.rss),
    'now-cpu': sample.cpu === null ? '–' : `${sample.cpu.toFixed(2)} cores`,
    'now-refusals': count(refusals.reduce((sum, { recent }) => sum + recent, 0)),
    'shards-note': `${server.shards} running`,
    'transports-note': `${count(gauges.connections)} sockets, ${count(gauges.tls_connections)} with TLS`
  }
  for (const [id, text] of Object.entries(texts)) find(id).textContent = text
  tables.shards.show(sample.shards)
  tables.refusals.show(refusals)
  tables.transports.show(connectionsOf(gauges))
}

/** Returns how often something was refused in the last minute, or since this page was opened. */
function lastMinute({ name, value }, { at }) {
  const first = samples.find((sample) => sample.at >= at - MINUTE_MS)
  const before = first?.stats.counters[name] ?? first?.stats.server[name] ?? value
  return Math.max(0, value - before)
}

function connectionsOf(gauges) {
  const kinds = [
    ['WebSocket', gauges.clients_websocket],
    ['Raw TCP', gauges.clients_raw],
    ['Event streams', gauges.clients_streaming],
    ['Long polling', gauges.clients_polling],
    ['TLS', gauges.tls_connections],
    ['TLS handshakes open', gauges.tls_handshakes_open]
  ]
  const all = Math.max(1, gauges.clients, gauges.connections)
  return kinds.map(([name, value]) => ({ name, value, part: value / all }))
}

// The details of a client.

const dialog = find('client')
let shown = null

/** Shows the details of a client, and keeps them up to date while they are open. */
async function show(id) {
  shown = id
  find('client-title').textContent = `Client ${id}`
  for (const part of ['client-facts', 'client-drops', 'client-paths']) find(part).replaceChildren()
  find('client-gone').hidden = true
  find('client-more').hidden = true
  if (!dialog.open) dialog.showModal()
  await refreshClient()
}

async function refreshClient() {
  const id = shown
  let details
  try {
    details = await get(`/clients/${encodeURIComponent(id)}`)
  } catch (error) {
    if (id === shown) {
      find('client-gone').textContent = error.message
      find('client-gone').hidden = false
    }
    return
  }
  if (id === shown) fillClient(details)
}

function fillClient(client) {
  find('client-gone').hidden = true
  find('client-more').hidden = false
  facts(find('client-facts'), [
    ['Address', client.address],
    ['User', client.user ?? 'not authenticated'],
    ['Transport', transport(client)],
    ['Outbox', `${bytes(client.outbox_bytes)} of ${bytes(client.outbox_bytes_max)}`],
    ['In flight', bytes(client.in_flight_bytes)],
    ['Reads nothing for', stalled(client) ?? '–'],
    ['Last heard', `${duration(client.silent_seconds)} ago`],
    ['Listened to', client.paused ? 'no: other shards are behind' : 'yes']
  ])
  facts(find('client-drops'), [
    ['Requests refused (420)', count(client.drops.requests_refused)],
    ['Callbacks dropped', count(client.drops.callbacks_dropped)],
    ['Pongs replaced', count(client.drops.pongs_replaced)]
  ])
  const more = client.subscriptions - client.paths.length
  find('client-paths-title').textContent = `Subscriptions: ${count(client.subscriptions)}`
  const texts = more > 0 ? [...client.paths, `and ${count(more)} more`] : client.paths
  const list = find('client-paths')
  const items = texts.map((text) => Object.assign(document.createElement('li'), { textContent: text }))
  if (list.textContent !== texts.join('')) list.replaceChildren(...items)
  list.hidden = !texts.length
}

find('client-close').addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => { shown = null })
dialog.addEventListener('click', (event) => {
  // A click on the backdrop.
  if (event.target === dialog) dialog.close()
})
find('find').addEventListener('submit', (event) => {
  event.preventDefault()
  const id = find('find-id').value.trim()
  if (id) show(id)
})
find('pause').addEventListener('click', () => {
  const isPaused = !source.isPaused
  find('pause').setAttribute('aria-pressed', isPaused)
  source.setPaused(isPaused)
  setState('live', isPaused ? 'Paused' : 'Live')
})

source.run()
