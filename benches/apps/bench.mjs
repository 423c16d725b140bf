// The application that scripts/apps.sh measures, in JavaScript: a handler that does nothing, and one that broadcasts.
import { app } from 'quickio'

app.event('/bench/nothing', () => {})
app.event('/relay', { children: true }, (event) => {
  app.broadcast(event.fullPath, event.json)
})
