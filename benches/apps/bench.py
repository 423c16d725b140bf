"""The application that scripts/apps.sh measures, in Python: handlers that do nothing, and one that broadcasts."""

from quickio import app


@app.event("/bench/nothing")
async def nothing(event):
    pass


@app.event("/bench/plain")
def plain(event):
    pass


@app.event("/relay", children=True)
async def relay(event):
    app.broadcast(event.full_path, event.json)
