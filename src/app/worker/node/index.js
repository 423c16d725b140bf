// The package for `import`. It exports the same objects as for `require`, and an application may use both.

import quickio from './index.cjs'

export const { app, Answer, Json, NEVER } = quickio
export const { Refusal, BadData, AlreadyAnswered, Dropped, NotRunning } = quickio
export const { Client, Event, Later, LaterDecision, Registration, Reply, Subscription, Timer, Unsubscribed } = quickio
