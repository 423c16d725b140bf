// Uses everything that the package exports. `tsc --strict` must find no error, except where one is expected.
import { Answer, app, type Client, Dropped, type Event, Json, NEVER, Refusal, type Reply, type Timer } from 'quickio'

const members = new Map<Client, string>()

app
  .event('/say', { children: true, subscriptions: true }, (event: Event) => {
    members.set(event.client, String(event.data))
    event.client.data.seen = app.now()
    app.broadcast(event.fullPath, event.json)
    if (event.wantsAnswer) throw new Refusal(400, 'no', { extra: event.extra })
    return NEVER
  })
  .on((subscription) => subscription.data === 'yes' && (subscription.options?.history ?? 0) <= 20)
  .off(({ client }) => members.delete(client))

app.event('/later', (event) => {
  const later = event.later()
  app.after(0.5, () => later.answer([1, 2.5, null]))
  return later
})

app.event('/ask', async ({ client }) => {
  try {
    const data: unknown = await app.ask(client, '/you', new Json('[1]'))
    return new Answer(String(data), { callback: (reply: Reply) => reply.data })
  } catch (error) {
    if (error instanceof Dropped) return null
    throw error
  }
})

// Functions whose results are not used may return anything.
app.gone((client) => app.log('info', client.id))
app.gone(async (client) => members.delete(client))
const timer: Timer = app.every(1, () => members.size)
timer.cancel()
app.after(1, () => app.every(1, async () => 'done'))
app.start(() => members)
app.stop(() => members.clear())
app.selfTest(async () => members.size === 0)
app.event('/send', ({ client }) => {
  app.send(client, '/you', 1, { callback: () => 2, dropped: () => members.delete(client) })
})
const greeting: string = app.settings.greeting ?? `${app.name} ${app.instance + app.instances}`
app.start(() => app.log('info', greeting))

// @ts-expect-error
app.close('nobody')
// @ts-expect-error
app.event(7)
// @ts-expect-error
app.greet()
// @ts-expect-error
app.event('/x', { child: true })
// @ts-expect-error
new Answer(1, () => 2)
// @ts-expect-error
app.log('loud', 'text')
