// A TCP proxy in front of a server, which can cut, freeze or refuse connections. It needs only Node.

import net from 'node:net'

/** A TCP proxy in front of a server, under the control of a test. */
export class TcpProxy {
  #pairs = new Set()
  #refuses = false
  accepted = 0 // number of connections, including refused ones

  static async inFrontOf(server) {
    const proxy = new TcpProxy()
    proxy.listener = net.createServer((near) => proxy.#connect(near, server.port))
    await new Promise((resolve) => proxy.listener.listen(0, '127.0.0.1', resolve))
    proxy.address = `127.0.0.1:${proxy.listener.address().port}`
    proxy.url = `http://${proxy.address}`
    return proxy
  }

  #connect(near, port) {
    this.accepted++
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

  /** Resets all connections. New ones work. */
  cut() {
    for (const pair of this.#pairs) pair.forEach((socket) => socket.resetAndDestroy())
  }

  /** Stops all current connections from carrying data, without closing them. */
  freeze() {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far)
      far.unpipe(near)
    }
  }

  /** Resets all connections, and refuses new ones until `allow`. */
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
