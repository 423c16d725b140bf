"""Broadcasts an event by the server API, in Python. docs/server-api.md describes the API."""

import json
import os
import pathlib
import urllib.request

api = os.environ.get("API", "http://127.0.0.1:8090")
key = pathlib.Path(os.environ.get("KEY_FILE", "/etc/quickio/shop.key")).read_text().strip()
events = [{"path": "/relay/news", "data": {"from": "Python"}}]
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
request = urllib.request.Request(f"{api}/broadcast", json.dumps(events).encode(), headers)
with urllib.request.urlopen(request, timeout=10) as response:
    print(response.read().decode(), end="")
