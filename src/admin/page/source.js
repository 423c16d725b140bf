// The values of the server: asks for them again and again, and computes the rates between two answers.

/** The time between two questions, in milliseconds. */
export const PERIOD_MS = 2000

/** The time that the charts show, in milliseconds. */
export const SHOWN_MS = 5 * 60_000

/** Lists change less often than numbers. They are asked for once in so many periods. */
const LIST_PERIODS = 2
const WORKER_PERIODS = 5

/** The number of clients and paths in the lists. */
const LISTED = 20

const ANSWER_MS = 8000

/** An answer other than 200. `status` is 0 if there was none. */
export class NoAnswer extends Error {
  constructor(status, text) {
    super(text)
    this.status = status
  }
}

/** Returns the JSON of a page. */
export async function get(path) {
  let response
  try {
    response = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS), cache: 'no-store' })
  } catch {
    throw new NoAnswer(0, 'The server does not answer.')
  }
  if (!response.ok) throw new NoAnswer(response.status, (await response.text()).trim())
  return response.json()
}

/**
 * Polls the server while the page is visible. Calls `handlers.sample(sample)` with each sample, `handlers.clients`,
 * `handlers.paths` and `handlers.workers` with the lists, and `handlers.failed(error)`.
 */
export class Source {
  constructor(handlers) {
    this.handlers = handlers
    this.isPaused = false
    this.number = 0
    this.isAsking = false
    this.last = null
    document.addEventListener('visibilitychange', () => this.run())
  }

  setPaused(isPaused) {
    this.isPaused = isPaused
    this.run()
  }

  /** Asks now, unless a question is under way, and again after each period. */
  run() {
    clearTimeout(this.timer)
    if (this.isPaused || document.hidden) return
    const begun = performance.now()
    const again = () => {
      clearTimeout(this.timer)
      this.timer = setTimeout(() => this.run(), Math.max(200, PERIOD_MS - (performance.now() - begun)))
    }
    if (this.isAsking) return again()
    this.isAsking = true
    this.ask().catch((error) => this.fail(error)).finally(() => {
      this.isAsking = false
      again()
    })
  }

  fail(error) {
    this.last = null
    this.number = 0
    this.handlers.failed(error)
  }

  async ask() {
    const number = this.number
    const list = (path, key, periods) => {
      return number % periods ? null : get(path).then((page) => this.handlers[key](page[key]))
    }
    const [stats, histograms] = await Promise.all([
      get('/stats'),
      get('/histograms?latency=delivery'),
      list(`/clients?slowest=${LISTED}`, 'clients', LIST_PERIODS),
      list(`/paths/busiest?count=${LISTED}`, 'paths', LIST_PERIODS),
      list('/workers', 'workers', WORKER_PERIODS)
    ])
    this.number++
    const now = { at: Date.now(), stats, delivery: histograms.intervals.delivery }
    const isSameServer = this.last?.stats.server.started === stats.server.started
    this.handlers.sample(sampleOf(now, isSameServer ? this.last : null))
    this.last = now
  }
}

/** Returns the sample of an answer. Rates are null if there is no answer before it. */
function sampleOf(now, before) {
  const { stats } = now
  const seconds = before && stats.process.uptime_seconds - before.stats.process.uptime_seconds
  const rate = (value) => before && seconds > 0 ? Math.max(0, (value(now.stats) - value(before.stats)) / seconds) : null
  const [p50, p99, p999] = percentiles(now.delivery, before?.delivery, [0.5, 0.99, 0.999])
  const cpu = (stats) => stats.process.cpu_user_seconds + stats.process.cpu_system_seconds
  return {
    at: now.at,
    stats,
    p50,
    p99,
    p999,
    events: rate((stats) => stats.counters.events_received),
    deliveries: rate((stats) => stats.counters.messages_sent),
    cpu: rate(cpu),
    rss: stats.process.rss_bytes,
    outboxes: stats.gauges.outbox_bytes,
    history: stats.gauges.history_bytes,
    websocket: stats.gauges.clients_websocket,
    raw: stats.gauges.clients_raw,
    stream: stats.gauges.clients_streaming,
    polling: stats.gauges.clients_polling,
    shards: stats.shards.map((shard, index) => ({
      index,
      clients: shard.gauges.clients,
      outboxes: shard.gauges.outbox_bytes,
      events: rate((stats) => stats.shards[index].counters.events_received),
      deliveries: rate((stats) => stats.shards[index].counters.messages_sent),
      busy: rate((stats) => busySeconds(stats.shards[index].timers.turn))
    }))
  }
}

/** Returns the seconds that a shard has spent in its turns. */
const busySeconds = (turn) => turn.count ? turn.count * turn.mean / 1e6 : 0

/**
 * Returns the percentiles, in microseconds, of what was recorded between two histograms, or nulls if that is nothing.
 * Histograms are lists of intervals: the longest duration and the count.
 */
export function percentiles(now, before, wanted) {
  const earlier = new Map(before ?? [])
  const fresh = before ? now.map(([us, count]) => [us, count - (earlier.get(us) ?? 0)]).filter(([, count]) => count > 0) : []
  const total = fresh.reduce((sum, [, count]) => sum + count, 0)
  return wanted.map((part) => {
    let left = total * part
    return fresh.find(([, count]) => (left -= count) <= 1e-9)?.[0] ?? null
  })
}
