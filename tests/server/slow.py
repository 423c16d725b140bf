"""An application whose answers take half a second."""

import asyncio

from quickio import app


@app.event("/slow")
async def slow(event):
    await asyncio.sleep(0.5)
    return 7
