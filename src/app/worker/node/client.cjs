// Clients, as one link knows them.
//
// As long as a client is connected it is the same object, so that it can be the key of a Map. The server has a slot for
// each of its clients, and gives it to another one only when the one before has gone: one object is kept for each slot,
// the last that was there. So there are never more of them than there were clients at once.

'use strict'

let makeClient

/** A client: who sent an event, and to whom one can be sent. */
class Client {
  #data
  #watch

  /** @hideconstructor */
  constructor(secret, shard, slot, generation, watch) {
    if (secret !== SECRET) throw new TypeError('only the server makes clients')
    this.shard = shard
    this.slot = slot
    this.generation = generation
    this.#watch = watch
  }

  /** Its name: no other client ever has the same. */
  get id() {
    return `${this.shard}.${this.slot}.${this.generation}`
  }

  /** What the application keeps for it. From the first use on, its end is told to the functions of `app.gone`. */
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
  }
}

const SECRET = Symbol('made by the library')

class Clients {
  #shard
  #latest = new Map()
  /** Those whose data was used, by name: they are known until they have gone, whoever has their slot. */
  #watched = new Map()
  #watch

  /** `tell(client)` asks the server to tell when the client has gone. */
  constructor(shard, tell) {
    this.#shard = shard
    this.#watch = (client) => {
      this.#watched.set(client.id, client)
      tell(client)
    }
  }

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

  /** A watched client has gone: answers it. Whoever still holds it finds its data there. */
  forget(slot, generation) {
    const id = `${this.#shard}.${slot}.${generation}`
    const client = this.#watched.get(id)
    this.#watched.delete(id)
    if (client !== undefined && this.#latest.get(slot) === client) this.#latest.delete(slot)
    return client
  }
}

module.exports = { Client, Clients }
