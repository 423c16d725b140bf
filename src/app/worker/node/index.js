// The package for `import`. It is the same as for `require`, with the very same objects: applications may mix both.

import quickio from './index.cjs'

export const { app, Answer, Json, NEVER } = quickio
export const { Refusal, BadData, AlreadyAnswered, Dropped, NotRunning } = quickio
export const { Client, Event, Later, LaterDecision, Registration, Reply, Subscription, Timer, Unsubscribed } = quickio
