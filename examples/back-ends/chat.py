"""A chat whose back end is plain Python: QuickIO asks it by webhooks, and it broadcasts by the server API.

docs/webhooks.md describes both sides. It needs nothing but Python. The settings of the server:

    app = ["webhook"]
    api = "127.0.0.1:8090"

    [[api-keys]]
    name = "chat"
    secret-file = "chat.key"
    scopes = ["broadcast"]

    [app-settings.webhook]
    url = "http://127.0.0.1:8000/"
    secret-file = "webhook.key"
    paths = "/chat"

A client that is to be known has a session of the web site, as a token or as a cookie: with events = "connect,on,send,gone" and
auth = "optional", QuickIO asks about it. SESSIONS_FILE has {"session": "user"} as JSON.

A client joins a room: it subscribes to /chat/ROOM with its name as extra data. It then sends {"text": ...} to the same path, which
all members get with a number and the sender's name.
"""

import hashlib
import hmac
import json
import os
import pathlib
import re
import threading
import time
import urllib.request
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = pathlib.Path(os.environ.get("SECRET_FILE", "webhook.key")).read_bytes().strip()
API = os.environ.get("API", "http://127.0.0.1:8090")
API_KEY = pathlib.Path(os.environ.get("KEY_FILE", "chat.key")).read_text().strip()

SESSIONS_FILE = os.environ.get("SESSIONS_FILE")

# Requests that are signed longer ago may be replays.
SIGNED_WITHIN = 60

lock = threading.Lock()
rooms = {}  # path of a room -> {"names": {client: name}, "said": number of messages}


class Refused(Exception):
    """A refusal with a status and a reason."""


def connect(event):
    """A client connects: it is the user of its session."""
    session = event["token"]
    if session is None:
        cookies = SimpleCookie(event["headers"].get("cookie", ""))
        session = cookies["session"].value if "session" in cookies else None
        if session is None:
            return {"user": None}
    sessions = json.loads(pathlib.Path(SESSIONS_FILE).read_text()) if SESSIONS_FILE else {}
    if session not in sessions:
        raise Refused(401, "there is no such session")
    return {"user": sessions[session], "expires": int(time.time()) + 3600}


def on(event):
    """A client wants to join a room: it is accepted if its name is free."""
    name = event["data"].get("name") if isinstance(event["data"], dict) else event["user"]
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,20}", name):
        raise Refused(400, "a name has 1 to 20 letters")
    room = rooms.setdefault(event["path"], {"names": {}, "said": 0})
    if any(other == name for client, other in room["names"].items() if client != event["client"]):
        raise Refused(403, "the name is taken")
    room["names"][event["client"]] = name
    broadcast(event["path"], {"joined": name})


def send(event):
    """A client says something: the members get it, and the client its number."""
    room = rooms.get(event["path"])
    name = room and room["names"].get(event["client"])
    if not name:
        raise Refused(401, "join the room first")
    text = event["data"].get("text") if isinstance(event["data"], dict) else None
    if not isinstance(text, str):
        raise Refused(400, "say a text")
    room["said"] += 1
    broadcast(event["path"], {"id": room["said"], "from": name, "text": text})
    return room["said"]


def gone(event):
    """Clients have disconnected. This may be told twice."""
    for path, room in rooms.items():
        for client in event["clients"]:
            name = room["names"].pop(client, None)
            if name:
                broadcast(path, {"left": name})


def broadcast(path, data):
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "text/plain"}
    line = f"{path}:0={json.dumps(data)}".encode()
    request = urllib.request.Request(f"{API}/broadcast", line, headers)
    with urllib.request.urlopen(request, timeout=5) as response:
        response.read()


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.check(body)
            event = json.loads(body)
            with lock:
                answer = {"connect": connect, "on": on, "send": send, "gone": gone}[event["event"]](event)
            self.reply(200, answer)
        except Refused as refused:
            status, reason = refused.args
            self.reply(status, {"error": reason})

    def check(self, body):
        """Refuses requests that the server has not signed, or not now."""
        signed_at = self.headers.get("Quickio-Timestamp", "")
        signed = hmac.new(SECRET, signed_at.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"v1={signed}", self.headers.get("Quickio-Signature", "")):
            raise Refused(401, "the signature is wrong")
        if abs(time.time() - int(signed_at)) > SIGNED_WITHIN:
            raise Refused(401, "the request is too old")

    def reply(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Hook)
    server.daemon_threads = True
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
