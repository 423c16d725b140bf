// A wire before a server, which can be cut, frozen and taken away. It needs nothing but Node.

import net from 'node:net'

/** Passes connections on to a server, for as long and as far as it shall. */
export class Wire {
  #pairs = new Set()
  #refuses = false
  taken = 0 // connections, refused ones too

  static async to(server) {
    const wire = new Wire()
    wire.listener = net.createServer((near) => wire.#connect(near, server.port))
    await new Promise((resolve) => wire.listener.listen(0, '127.0.0.1', resolve))
    wire.address = `127.0.0.1:${wire.listener.address().port}`
    wire.url = `http://${wire.address}`
    return wire
  }

  #connect(near, port) {
    this.taken++
    near.on('error', () => {})
    if (this.#refuses) return near.resetAndDestroy()
    const far = net.connect(port, '127.0.0.1')
    const pair = [near, far]
    this.#pairs.add(pair)
    near.pipe(far)
    far.pipe(near)
    far.on('error', () => {})
    for (const socket of pair) {
      socket.setNoDelay(true)
      socket.on('close', () => {
        pair.forEach((other) => other.destroy())
        this.#pairs.delete(pair)
      })
    }
  }

  cut() {
    for (const pair of this.#pairs) pair.forEach((socket) => socket.resetAndDestroy())
  }

  /** What is connected now says nothing any more, and does not end either. */
  freeze() {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far)
      far.unpipe(near)
    }
  }

  /** Nothing gets through, until `allow`. */
  refuse() {
    this.#refuses = true
    this.cut()
  }

  allow() {
    this.#refuses = false
  }

  async end() {
    this.cut()
    await new Promise((resolve) => this.listener.close(resolve))
  }
}
