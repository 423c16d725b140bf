"""The application that scripts/attack.sh attacks: /slow takes a second, /echo answers at once."""

import asyncio

from quickio import app


@app.event("/slow", subscriptions=False)
async def slow(_event):
    await asyncio.sleep(1)


@app.event("/echo", subscriptions=False)
async def echo(event):
    return event.data
