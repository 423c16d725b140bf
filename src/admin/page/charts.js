// Charts of samples over time, as SVG.

import { PERIOD_MS, SHOWN_MS } from './source.js'

/** A chart begins with a shorter time, so that a page that was just opened shows something. */
const SHOWN_MIN_MS = 60_000

/** The width in pixels that the text of a time needs. */
const TIME_WIDTH = 64

const HEIGHT = 132
const LEFT = 46
const RIGHT = 6
const TOP = 8
const BOTTOM = 18
const NS = 'http://www.w3.org/2000/svg'

function svg(tag, attributes, text) {
  const element = document.createElementNS(NS, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  if (text !== undefined) element.textContent = text
  return element
}

/** Returns the smallest of 1, 2 and 5 times a power of ten that is at least `value`; for bytes, a power of two. */
export function niceTop(value, isBytes) {
  if (isBytes) return 2 ** Math.ceil(Math.log2(Math.max(value, 1024)))
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)))
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value)
}

/** A chart in a figure. `series` has the key in a sample, the name and the class of each line. */
export class LineChart {
  /** `scale` is `linear`, `bytes` or `log`; `format` makes texts of values. */
  constructor(id, series, scale, format) {
    this.figure = document.getElementById(id)
    this.series = series
    this.scale = scale
    this.format = format
    this.samples = []
    this.pointed = null
    this.legend = this.figure.querySelector('figcaption').appendChild(document.createElement('ul'))
    this.legend.className = 'legend'
    this.values = series.map(({ name, key }) => {
      const item = this.legend.appendChild(document.createElement('li'))
      item.appendChild(document.createElement('span')).className = `swatch line-${key}`
      item.append(name, ' ')
      return item.appendChild(document.createElement('output'))
    })
    this.title = this.figure.querySelector('h2').textContent
    this.plot = this.figure.appendChild(svg('svg', { height: HEIGHT, tabindex: 0, role: 'img', class: 'plot' }))
    new ResizeObserver(() => this.draw(this.samples)).observe(this.figure)
    this.plot.addEventListener('pointermove', (event) => this.point(this.timeAt(event.offsetX)))
    this.plot.addEventListener('pointerleave', () => this.point(null))
    this.plot.addEventListener('blur', () => this.point(null))
    this.plot.addEventListener('keydown', (event) => this.key(event))
  }

  /** Moves the mark to the sample nearest to a time, or removes it. */
  point(time) {
    this.pointed = time
    this.draw(this.samples)
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (event.key === 'Escape') this.point(null)
    if (!step || !this.samples.length) return
    event.preventDefault()
    const at = this.pointed === null ? this.samples.length - 1 : this.nearest() + step
    this.point(this.samples[Math.min(Math.max(at, 0), this.samples.length - 1)].at)
  }

  nearest() {
    const distance = ({ at }) => Math.abs(at - this.pointed)
    return this.samples.reduce((best, sample, index) => distance(sample) < distance(this.samples[best]) ? index : best, 0)
  }

  timeAt(x) {
    return this.end - (1 - (x - LEFT) / (this.width - LEFT - RIGHT)) * this.span
  }

  x(at) {
    return LEFT + (1 - (this.end - at) / this.span) * (this.width - LEFT - RIGHT)
  }

  y(value) {
    const [low, high] = this.range
    const part = this.scale === 'log' ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)
    return HEIGHT - BOTTOM - Math.min(Math.max(part, 0), 1) * (HEIGHT - TOP - BOTTOM)
  }

  draw(samples) {
    this.samples = samples
    this.width = Math.max(200, this.plot.clientWidth || this.figure.clientWidth - 24)
    this.end = samples.at(-1)?.at ?? Date.now()
    this.span = Math.min(Math.max(this.end - (samples[0]?.at ?? this.end), SHOWN_MIN_MS), SHOWN_MS)
    const values = samples.flatMap((sample) => this.series.map(({ key }) => sample[key])).filter((value) => value !== null)
    this.range = this.rangeOf(values)
    const parts = [...this.axes(), ...this.series.map((series) => this.line(series))]
    const index = this.pointed === null || !samples.length ? samples.length - 1 : this.nearest()
    if (this.pointed !== null && samples.length) parts.push(...this.mark(samples[index]))
    this.plot.setAttribute('viewBox', `0 0 ${this.width} ${HEIGHT}`)
    this.plot.replaceChildren(...parts)
    this.tell(samples[index])
  }

  rangeOf(values) {
    const max = Math.max(0, ...values)
    if (this.scale !== 'log') return [0, niceTop(max, this.scale === 'bytes')]
    const min = values.length ? Math.min(...values) : 10
    const low = 10 ** Math.floor(Math.log10(Math.max(min, 1)))
    return [low, Math.max(10 ** Math.ceil(Math.log10(Math.max(max, 1))), low * 100)]
  }

  *axes() {
    const [low, high] = this.range
    const decades = Math.round(Math.log10(high / low))
    const ticks = this.scale === 'log'
      ? Array.from({ length: decades + 1 }, (_, n) => low * 10 ** n)
      : [0, high / 2, high]
    for (const tick of ticks) {
      const y = this.y(tick)
      yield svg('line', { class: 'grid-line', x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y })
      yield svg('text', { class: 'axis', x: LEFT - 6, y: y + 3.5, 'text-anchor': 'end' }, this.format(tick))
    }
    yield* this.times()
  }

  *times() {
    const room = (this.width - LEFT - RIGHT) / TIME_WIDTH
    const step = [10_000, 20_000, 30_000, 60_000, 120_000].find((step) => this.span / step <= room) ?? 120_000
    for (let ago = 0; ago <= this.span; ago += step) {
      const x = this.x(this.end - ago)
      if (ago && x < LEFT + TIME_WIDTH / 4) continue
      const text = step % 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`
      yield svg('text', { class: 'axis', x, y: HEIGHT - 4, 'text-anchor': ago ? 'middle' : 'end' }, ago ? text : 'now')
    }
  }

  /** Returns the line of a series. It is broken where samples are missing. */
  line({ key }) {
    let path = ''
    let before = null
    for (const sample of this.samples) {
      const value = sample[key]
      if (value === null || this.scale === 'log' && value <= 0) {
        before = null
        continue
      }
      const isNext = before !== null && sample.at - before < 3 * PERIOD_MS
      const [x, y] = [this.x(sample.at).toFixed(1), this.y(value).toFixed(1)]
      path += isNext ? `L${x} ${y}` : `M${x} ${y}h0`
      before = sample.at
    }
    return svg('path', { class: `line line-${key}`, d: path })
  }

  *mark(sample) {
    const x = this.x(sample.at)
    yield svg('line', { class: 'mark', x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM })
    for (const { key } of this.series) {
      if (sample[key] !== null) yield svg('circle', { class: `point line-${key}`, cx: x, cy: this.y(sample[key]), r: 3 })
    }
  }

  /** Writes the values of a sample into the legend. */
  tell(sample) {
    const texts = this.series.map(({ key }) => sample && sample[key] !== null ? this.format(sample[key]) : '–')
    texts.forEach((text, index) => { this.values[index].textContent = text })
    const named = this.series.map(({ name }, index) => `${name} ${texts[index]}`)
    const when = this.pointed === null || !sample ? '' : `, ${Math.round((this.end - sample.at) / 1000)} seconds ago`
    this.plot.setAttribute('aria-label', `${this.title}${when}: ${named.join(', ')}. Arrow keys move through time.`)
  }
}
