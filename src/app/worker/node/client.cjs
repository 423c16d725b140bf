// The clients of one link.
//
// A connected client is always represented by the same object, which can therefore be a key of a Map. The server has a
// slot for each client, and reuses it only after the client has disconnected. This library keeps one object for each
// slot, the latest, so there are never more objects than there were clients at one time.

'use strict'

let makeClient, stopWatching

/** A client: the sender of an event, and the receiver of events that the application sends. */
class Client {
  #data
  #watch

  /** @hideconstructor */
  constructor(secret, shard, slot, generation, watch) {
    if (secret !== SECRET) throw new TypeError('a Client cannot be constructed: use event.client')
    this.shard = shard
    this.slot = slot
    this.generation = generation
    this.#watch = watch
  }

  /** A unique name, which is never used again for another client. */
  get id() {
    return `${this.shard}.${this.slot}.${this.generation}`
  }

  /** The application's data for this client. Once it has been used, `app.gone` functions run when the client
   * disconnects: in this worker, or in a later one of its instance, where the data is empty. */
  get data() {
    if (this.#data === undefined) {
      this.#data = {}
      this.#watch(this)
    }
    return this.#data
  }

  toString() {
    return this.id
  }

  static {
    makeClient = (shard, slot, generation, watch) => new Client(SECRET, shard, slot, generation, watch)
    stopWatching = (client) => (client.#watch = () => {})
  }
}

/** Proves that the library calls the constructor. */
const SECRET = Symbol('made by the library')

/** The clients of one shard. */
class Clients {
  #shard
  /** The latest client of each slot. */
  #latest = new Map()
  /** The clients whose data was used, by id. They are kept until they disconnect, even if their slot is reused. */
  #watched = new Map()
  #watch

  /** `watch(client)` asks the server to report when the client disconnects. */
  constructor(shard, watch) {
    this.#shard = shard
    this.#watch = (client) => {
      this.#watched.set(client.id, client)
      watch(client)
    }
  }

  /** Returns the object of a client. */
  find(slot, generation) {
    const latest = this.#latest.get(slot)
    return latest !== undefined && latest.generation === generation ? latest : this.#remember(slot, generation)
  }

  #remember(slot, generation) {
    const client =
      this.#watched.get(`${this.#shard}.${slot}.${generation}`) ??
      makeClient(this.#shard, slot, generation, this.#watch)
    this.#latest.set(slot, client)
    return client
  }

  /** Removes a client that has disconnected, and returns it. Code that still holds the object can use its data. A client
   * that was not watched here was watched by an earlier worker, and its data is empty. */
  forget(slot, generation) {
    const id = `${this.#shard}.${slot}.${generation}`
    const latest = this.#latest.get(slot)
    const known = this.#watched.get(id) ?? (latest?.generation === generation ? latest : undefined)
    const client = known ?? makeClient(this.#shard, slot, generation, this.#watch)
    this.#watched.delete(id)
    if (latest === client) this.#latest.delete(slot)
    stopWatching(client)
    return client
  }
}

module.exports = { Client, Clients }
