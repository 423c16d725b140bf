// Types of the package. How it is used is in docs/applications.md.

/** What can be JSON; `undefined` is `null`. */
export type Data =
  | string
  | number
  | boolean
  | null
  | undefined
  | Json
  | readonly Data[]
  | { toJSON(key?: string): unknown }
  | { readonly [name: string]: any }

/** What a handler may return at once, or a promise of it. */
export type Result = Data | Answer | Later | typeof NEVER | void
export type Handler = (event: Event) => Result | Promise<Result>
export type ReplyHandler = (reply: Reply) => Result | Promise<Result>
export type OnHook = (subscription: Subscription) => Decision | Promise<Decision>
export type Decision = boolean | LaterDecision | void
export type OffHook = (unsubscribed: Unsubscribed) => unknown
export type Level = 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** A client. As long as it is connected it is the same object. */
export class Client {
  private constructor()
  readonly shard: number
  readonly slot: number
  readonly generation: number
  /** Its name: no other client ever has the same. */
  readonly id: string
  /** What the application keeps for it. From the first use on, its end is told to the functions of `app.gone`. */
  readonly data: Record<string, any>
}

/** An event that a client sent. */
export class Event {
  private constructor()
  readonly client: Client
  /** The path at which the handler is registered. */
  readonly path: string
  /** The rest of the event's path, from the slash on; empty where there is none. */
  readonly extra: string
  /** Both together. */
  readonly fullPath: string
  /** Parsed when it is first asked for; throws `BadData` where it is no JSON. */
  readonly data: any
  /** The same as it was sent; nobody has checked it. */
  readonly json: Json
  readonly wantsAnswer: boolean
  /** A promise to answer: return it or not, but keep it. */
  later(): Later
}

/** What a client answered to a callback. */
export class Reply {
  private constructor()
  readonly client: Client
  readonly data: any
  readonly json: Json
  readonly wantsAnswer: boolean
  later(): Later
}

/** A client wants to subscribe; `data` is the extra JSON that it sent. */
export class Subscription {
  private constructor()
  readonly client: Client
  readonly path: string
  readonly extra: string
  readonly fullPath: string
  readonly data: any
  readonly json: Json
  later(): LaterDecision
}

/** A subscription that has ended. */
export class Unsubscribed {
  private constructor()
  readonly client: Client
  readonly path: string
  readonly extra: string
  readonly fullPath: string
}

/** Code 200 and data, and perhaps a callback that the client may answer. */
export class Answer {
  constructor(data?: Data, options?: { callback?: ReplyHandler })
  data: Data
  callback: ReplyHandler | undefined
}

/** Returned by a handler: the client gets no answer, ever. */
export const NEVER: unique symbol

/** A promise to answer. One that is forgotten answers 500, when the garbage collector finds it. */
export class Later {
  private constructor()
  answer(data?: Data | Answer | typeof NEVER): void
  error(code: number, message?: string | null, data?: Data): void
}

/** A promise to decide about a subscription. */
export class LaterDecision {
  private constructor()
  accept(): void
  refuse(): void
}

/** JSON text that is passed on as it is. The constructor throws a SyntaxError where it is none. */
export class Json {
  constructor(text: string)
  readonly text: string
  toString(): string
  toJSON(): any
}

/** An error answer, to be thrown. */
export class Refusal extends Error {
  constructor(code: number, message?: string | null, data?: Data)
  readonly code: number
  readonly data: Data
  /** The message that the client gets. */
  readonly text: string | null
}

/** What a client sent is no JSON: 400. */
export class BadData extends Refusal {
  constructor()
}

export class AlreadyAnswered extends Error {}
/** A callback will never be answered: 500, where it is let through. */
export class Dropped extends Refusal {
  constructor()
}
/** There is no server to send anything to, yet. */
export class NotRunning extends Error {}

export class Timer {
  private constructor()
  cancel(): void
}

/** An event of the application's. */
export class Registration {
  private constructor()
  readonly path: string
  readonly children: boolean
  readonly handler: Handler | undefined
  readonly onHook: OnHook | undefined
  readonly offHook: OffHook | undefined
  /** Decides who may subscribe. */
  on(fn: OnHook): this
  /** Is told of each subscription that has ended. */
  off(fn: OffHook): this
}

export interface EventOptions {
  /** Whether paths below are handled, too; `false`. */
  children?: boolean
  /** Whether clients may subscribe; `true`. */
  subscriptions?: boolean
}

export interface SendOptions {
  /** Runs when the client answers. */
  callback?: ReplyHandler
  /** Runs when it never will. */
  dropped?: () => unknown
}

export interface App {
  readonly name: string
  readonly instance: number
  readonly instances: number
  readonly settings: Readonly<Record<string, string>>

  event(path: string, handler?: Handler): Registration
  event(path: string, options: EventOptions, handler?: Handler): Registration

  broadcast(path: string, data?: Data): void
  send(client: Client, path: string, data?: Data, options?: SendOptions): void
  /** Rejects with `Dropped` where the client never answers, or answers what is no JSON. */
  ask(client: Client, path: string, data?: Data): Promise<any>
  close(client: Client): void
  move(client: Client, address: string): void

  after(seconds: number, fn: () => unknown): Timer
  every(seconds: number, fn: () => unknown): Timer
  /** Seconds since the server began, as it has told last. */
  now(): number
  log(level: Level, text: string): void

  start(fn: () => unknown): void
  stop(fn: () => unknown): void
  selfTest(fn: () => unknown): void
  gone(fn: (client: Client) => unknown): void
}

export const app: App
