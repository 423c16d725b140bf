// A second baseline for scripts/floor.sh: the same events on `ws`, the usual WebSocket server of Node, in a
// straightforward implementation. It supports the events that the load generator's ping and fanout need: /qio/ohai,
// /qio/ping, /qio/on, and broadcasts to paths under /relay.
//
//     (cd tests/clients/node && npm ci) && node scripts/baseline_ws.mjs 127.0.0.1:8080

import { createRequire } from 'node:module';

const { WebSocketServer, WebSocket } = createRequire(new URL('../tests/clients/node/', import.meta.url))('ws');

const [host, port] = (process.argv[2] ?? '127.0.0.1:8080').split(':');
const rooms = new Map();

const server = new WebSocketServer({
  host,
  port: Number(port),
  backlog: 4096,
  perMessageDeflate: false,
  handleProtocols: () => 'quickio',
});

server.on('connection', (socket) => {
  socket._socket.setNoDelay(true);
  socket.on('error', () => socket.terminate());
  socket.on('message', (data) => answer(socket, data.toString()));
  socket.on('close', () => rooms.forEach((subscribers) => subscribers.delete(socket)));
});

function answer(socket, event) {
  if (event === '/qio/ohai') return socket.send(event);
  const colon = event.indexOf(':');
  const equals = event.indexOf('=', colon);
  const [path, callback, data] = [event.slice(0, colon), event.slice(colon + 1, equals), event.slice(equals + 1)];
  if (path === '/qio/on') {
    subscribersOf(JSON.parse(data)).add(socket);
  } else if (path.startsWith('/relay/')) {
    const broadcast = `${path}:0=${data}`;
    for (const subscriber of subscribersOf(path)) {
      if (subscriber.readyState === WebSocket.OPEN) subscriber.send(broadcast);
    }
  }
  if (callback !== '0') socket.send(`/qio/callback/${callback}:0={"code":200,"data":null}`);
}

function subscribersOf(path) {
  if (!rooms.has(path)) rooms.set(path, new Set());
  return rooms.get(path);
}
