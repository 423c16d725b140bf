// The page at `/`: the transport in use, a drawing board that tabs share through the application `relay`, and
// latencies.
//
// Other clients can send anything to the path of the board. Every member of a received event is checked, received text
// is never interpreted as markup, and everything that is stored has a limit.

(() => {
  'use strict';

  const $ = (id) => document.getElementById(id);

  // The path that all tabs of this page share, and the path on which this tab sends events to itself.
  const BOARD = '/relay/quickio-page/board';
  const ECHO = `/relay/quickio-page/echo/${randomHex(16)}`;

  const PEERS_MAX = 64; // stored; the one that has been silent longest is removed first
  const PEERS_SHOWN_MAX = 5;
  const PEERS_NAMED_MAX = 12; // with more peers on the board, names would hide the strokes
  const PEER_SILENT_MS = 10_000; // a tab that is silent this long is treated as closed
  const PRESENCE_EVERY_MS = 3_000;
  const GREET_EVERY_MS = 300; // the interval of presence events while new tabs appear
  const POINTS_MAX = 256; // for each tab
  const STROKE_MS = 5_500; // until a stroke has faded
  const STROKE_STEPS = 16; // steps of fading, each drawn as one line
  const POINT_EVERY_MS = 25;
  const POINTER_RESTS_MS = 1_200; // the automatic pen continues when the pointer rests this long
  const MESSAGES_MAX = 40;
  const MESSAGE_CHARS_MAX = 200;
  const MEASURE_EVERY_MS = 125; // a ping and an echo alternate
  const UNANSWERED_MAX = 4; // limits open pings and echoes: on a slow transport they would pile up
  const ECHO_LOST_MS = 30_000;
  const WINDOW_MS = 60_000;
  const SAMPLES_MAX = 512; // more than one window contains
  const LINE_BREAKS_MS = 3_000; // samples that are further apart are not connected

  const COLOURS = [
    ['Teal', '#0d9488'], ['Blue', '#3b82f6'], ['Violet', '#8b5cf6'], ['Rose', '#e11d63'],
    ['Orange', '#ea580c'], ['Green', '#16a34a'], ['Magenta', '#c026d3'], ['Gold', '#b7791f'],
  ];
  const ANIMALS = [
    'Heron', 'Otter', 'Finch', 'Lynx', 'Hare', 'Crane', 'Marten', 'Wren',
    'Fox', 'Swift', 'Badger', 'Tern', 'Stoat', 'Owl', 'Newt', 'Kite',
  ];
  const TRANSPORTS = { websocket: 'WebSocket', stream: 'Event stream', poll: 'Long polling' };

  const NO_MESSAGES_TEXT = $('messages-none').textContent;

  const me = randomHex(4);
  const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');
  const darkScheme = matchMedia('(prefers-color-scheme: dark)');

  function randomHex(bytes) {
    const random = crypto.getRandomValues(new Uint8Array(bytes));
    return Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  /** Creates an element with a class and a text, which is never interpreted as markup. */
  function element(tag, className, text) {
    const created = document.createElement(tag);
    if (className) created.className = className;
    if (text !== undefined) created.textContent = text;
    return created;
  }

  /** Changes a text only if it differs, to avoid needless layout and screen reader announcements. */
  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  // The connection.

  let qio = null;
  let subscribe = null; // subscribes `qio` to the paths of this page
  let run = 0; // the number of this connection: event numbers restart with each connection of a tab
  let openedAt = null;
  let opened = 0;
  let relay = 'unknown'; // or 'available' or 'missing'

  function connect(choice) {
    const before = qio;
    const options = choice === 'auto' ? {} : { transports: [choice] };
    const client = new QuickIO(location.origin, options);
    qio = client;
    if (before) before.close();
    // Events of an earlier client are ignored.
    const ifCurrent = (fn) => (...args) => { if (qio === client) fn(...args); };
    client.on('/open', ifCurrent(onOpen));
    client.on('/close', ifCurrent(() => showState('connecting')));
    client.on('/error', ifCurrent((error) => setText($('why'), error.message)));
    subscribe = () => {
      client.on(BOARD, ifCurrent(onBoardEvent), ifCurrent(onRefused));
      client.on(ECHO, ifCurrent(onEcho), () => {});
    };
    subscribe();
    opened = 0;
    setText($('why'), '');
    showState('connecting');
  }

  function onOpen() {
    opened += 1;
    run += 1;
    sequence = 0;
    unanswered.trip = 0;
    echoes.clear();
    for (const peer of peers.values()) peer.run = null;
    // The server may be a different one now.
    if (relay === 'missing') {
      setRelay('unknown');
      subscribe();
    }
    setText($('why'), '');
    showState('open');
    sendPresence();
  }

  /** Shows that connection attempts fail. The client emits no event when it starts to wait for the next attempt. */
  function checkAttempts() {
    if (openedAt === null && qio.state === 'waiting') showState('failed');
  }

  function onRefused(error) {
    const why = error.code === 404
      ? 'The demonstration is not available on this server.'
      : `The server refused the subscription: ${error.message}.`;
    setText($('board-missing-why'), why);
    setRelay('missing');
  }

  function setRelay(state) {
    if (relay === state) return;
    relay = state;
    const missing = state === 'missing';
    $('board').classList.toggle('is-missing', missing);
    $('board-missing').hidden = !missing;
    for (const control of [$('pen'), $('text'), $('send')]) control.disabled = missing;
    if (missing) setPen(false);
    setText($('messages-none'), missing ? 'Messages need the application relay.' : NO_MESSAGES_TEXT);
    delivery.note(missing ? 'This measurement needs the application relay.' : null);
    showHint();
  }

  function showState(state) {
    openedAt = state === 'open' ? performance.now() : null;
    $('state').dataset.state = state;
    const name = TRANSPORTS[qio.transport];
    setText($('state-text'), { open: name, connecting: 'Connecting', failed: 'Not connected, retrying' }[state]);
    setText($('fact-transport'), state === 'open' ? name : 'None yet');
    const again = Math.max(0, opened - 1);
    setText($('fact-reconnects'), again === 1 ? 'Once' : `${again} times`);
    showSince();
  }

  function showSince() {
    const seconds = openedAt === null ? 0 : Math.floor((performance.now() - openedAt) / 1000);
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const two = (number) => String(number).padStart(2, '0');
    setText($('fact-since'), h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`);
  }

  function chooseTransport() {
    const choice = document.querySelector('[name=transport]:checked').value;
    history.replaceState(null, '', choice === 'auto' ? location.pathname : `#${choice}`);
    connect(choice);
  }

  // Events between tabs. Each tab numbers its events from 1 in each run, which lets receivers detect missing events.

  const peers = new Map(); // by id; the one that sent the latest event is last
  const counts = { events: 0, disorder: 0, missed: 0 };
  let sequence = 0;
  let myHue = parseInt(me.slice(0, 2), 16) % COLOURS.length;
  let lastPresenceAt = -Infinity;

  function sendEvent(kind, more) {
    if (openedAt === null || relay === 'missing') return;
    sequence += 1;
    qio.send(BOARD, { from: me, run, n: sequence, hue: myHue, kind, ...more }, null);
  }

  function sendPresence() {
    lastPresenceAt = performance.now();
    sendEvent('here');
  }

  function onBoardEvent(event) {
    if (!isEvent(event)) return;
    setRelay('available');
    counts.events += 1;
    const peer = updatePeer(event);
    if (event.kind === 'pen') addPoint(peer, event);
    if (event.kind === 'say') addMessage(peer, event);
    if (event.kind === 'bye') peers.delete(event.from);
    if (event.from === me) return;
    avoidClash(peer);
    // Timers hardly run in a hidden tab, but events still arrive.
    const now = performance.now();
    if (now - lastPresenceAt > (peer.isNew ? GREET_EVERY_MS : PRESENCE_EVERY_MS)) sendPresence();
    peer.isNew = false;
    drawAutomatically(now);
  }

  function isEvent(event) {
    return typeof event === 'object' && event !== null
      && typeof event.from === 'string' && /^[0-9a-f]{8}$/.test(event.from)
      && Number.isSafeInteger(event.n) && event.n > 0
      && Number.isSafeInteger(event.run)
      && COLOURS[event.hue] !== undefined && Number.isInteger(event.hue)
      && ['here', 'pen', 'say', 'bye'].includes(event.kind);
  }

  /** Updates the peer that sent the event, and counts events that are missing or out of order. Returns the peer. */
  function updatePeer(event) {
    const peer = peers.get(event.from) || newPeer(event.from);
    if (peer.run === event.run) {
      counts.missed += Math.max(0, event.n - peer.n - 1);
      counts.disorder += event.n <= peer.n ? 1 : 0;
    }
    peer.n = peer.run === event.run ? Math.max(peer.n, event.n) : event.n;
    peer.run = event.run;
    peer.hue = event.hue;
    peer.at = performance.now();
    peers.delete(event.from);
    peers.set(event.from, peer);
    if (peers.size > PEERS_MAX) peers.delete([...peers.keys()].find((id) => id !== me));
    return peer;
  }

  function newPeer(id) {
    return { id, hue: 0, run: null, n: 0, at: 0, points: [], isNew: true };
  }

  function nameOf(peer) {
    if (peer.id === me) return 'You';
    return `${COLOURS[peer.hue][0]} ${ANIMALS[parseInt(peer.id.slice(2, 4), 16) % ANIMALS.length]}`;
  }

  function colourOf(peer) {
    return COLOURS[peer.hue][1];
  }

  /** If two tabs have the same colour, the one with the greater id changes to a free colour, if there is one. */
  function avoidClash(peer) {
    if (peer.hue !== myHue || peer.id > me) return;
    const taken = new Set(Array.from(peers.values(), (other) => other.hue));
    const free = COLOURS.findIndex((_, hue) => !taken.has(hue));
    if (free < 0) return;
    myHue = free;
    sendPresence();
  }

  function showPeers() {
    const now = performance.now();
    for (const peer of peers.values()) {
      if (now - peer.at > PEER_SILENT_MS) peers.delete(peer.id);
    }
    const list = [...peers.values()].sort((a, b) => (b.id === me) - (a.id === me) || (a.id < b.id ? -1 : 1));
    const key = list.map((peer) => peer.id + peer.hue).join();
    if ($('tabs').dataset.key === key) return;
    $('tabs').dataset.key = key;
    const items = list.slice(0, PEERS_SHOWN_MAX).map((peer) => {
      const item = element('li');
      item.append(swatch(colourOf(peer)), element('span', '', nameOf(peer)));
      return item;
    });
    if (list.length > items.length) items.push(element('li', '', `and ${list.length - items.length} more`));
    $('tabs').replaceChildren(...items);
  }

  function swatch(colour) {
    const created = element('span', 'swatch');
    created.style.backgroundColor = colour;
    return created;
  }

  let rateAt = performance.now();
  let rateEvents = 0;

  function showCounts() {
    const now = performance.now();
    const rate = (counts.events - rateEvents) * 1000 / (now - rateAt);
    [rateAt, rateEvents] = [now, counts.events];
    setText($('count-events'), counts.events.toLocaleString('en'));
    setText($('count-rate'), String(Math.round(rate)));
    setText($('count-disorder'), counts.disorder.toLocaleString('en'));
    setText($('count-missed'), counts.missed.toLocaleString('en'));
    $('count-disorder').classList.toggle('bad', counts.disorder > 0);
    $('count-missed').classList.toggle('bad', counts.missed > 0);
  }

  // The board: lines of points that fade.

  const board = { canvas: $('board-canvas'), context: null, width: 0, height: 0, frameRequested: false, drawnAt: 0 };
  const pointer = { at: -Infinity, isNew: true };
  const pen = { on: false, startedAt: 0, at: 0, isNew: true };

  function addPoint(peer, event) {
    if (!Number.isFinite(event.x) || !Number.isFinite(event.y)) return;
    const clamp = (value) => Math.min(1, Math.max(0, value));
    const point = { x: clamp(event.x), y: clamp(event.y), first: event.first === true, at: performance.now() };
    peer.points.push(point);
    if (peer.points.length > POINTS_MAX) peer.points.shift();
    showHint();
    drawBoardSoon();
  }

  function showHint() {
    $('board-hint').hidden = relay === 'missing' || [...peers.values()].some((peer) => peer.points.length > 0);
  }

  function onPointer(event) {
    const now = performance.now();
    const first = pointer.isNew || now - pointer.at > POINTER_RESTS_MS;
    if (!first && now - pointer.at < POINT_EVERY_MS) return;
    const box = board.canvas.getBoundingClientRect();
    sendPoint((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, first);
    pointer.at = now;
    pointer.isNew = false;
    pen.isNew = true;
  }

  function sendPoint(x, y, first) {
    const rounded = (value) => Math.round(value * 10_000) / 10_000;
    sendEvent('pen', { x: rounded(x), y: rounded(y), ...(first && { first }) });
  }

  function setPen(on) {
    pen.on = on;
    pen.isNew = true;
    pen.at = performance.now();
    pen.startedAt = pen.at;
    $('pen').setAttribute('aria-pressed', String(on));
  }

  /** Draws with the automatic pen up to the current time. If the timer was late, draws several points. */
  function drawAutomatically(now) {
    if (!pen.on || now - pen.at < POINT_EVERY_MS || now - pointer.at < POINTER_RESTS_MS) return;
    const from = Math.max(pen.at, now - 1_000);
    for (let at = from + POINT_EVERY_MS; at <= now; at += POINT_EVERY_MS) {
      const [x, y] = figure((at - pen.startedAt) / 1000);
      sendPoint(x, y, pen.isNew);
      pen.isNew = false;
      pen.at = at;
    }
  }

  /** Returns the position of the automatic pen: a drifting Lissajous curve whose ratio depends on the tab. */
  function figure(seconds) {
    const seed = parseInt(me.slice(4), 16);
    const [a, b] = [[2, 3], [3, 4], [1, 2], [3, 5], [3, 2]][seed % 5];
    const turn = seconds * 0.9 / Math.max(a, b) * 2.4;
    const drift = seconds * 0.05 + seed;
    return [0.5 + 0.4 * Math.sin(a * turn + drift), 0.5 + 0.38 * Math.sin(b * turn)];
  }

  function drawBoardSoon() {
    if (board.frameRequested || document.hidden) return;
    board.frameRequested = true;
    requestAnimationFrame(drawBoard);
  }

  function drawBoard(now) {
    board.frameRequested = false;
    if (reducedMotion.matches && now - board.drawnAt < 400) {
      drawBoardSoon();
      return;
    }
    board.drawnAt = now;
    const { context, width, height } = board;
    context.clearRect(0, 0, width, height);
    for (const peer of peers.values()) forgetFaded(peer, now);
    const drawing = [...peers.values()].filter((peer) => peer.points.length > 0);
    for (const peer of drawing) drawStroke(context, peer, now);
    for (const peer of drawing) drawHead(context, peer, now, drawing.length <= PEERS_NAMED_MAX);
    if (drawing.length > 0) drawBoardSoon();
  }

  function forgetFaded(peer, now) {
    const kept = peer.points.findIndex((point) => now - point.at < STROKE_MS);
    if (kept !== 0) peer.points.splice(0, kept < 0 ? peer.points.length : kept);
  }

  /** Draws the points as curves between their midpoints. Points of roughly the same age are drawn as one line. */
  function drawStroke(context, peer, now) {
    const { points } = peer;
    const place = (point) => [point.x * board.width, point.y * board.height];
    context.strokeStyle = colourOf(peer);
    context.lineJoin = 'round';
    let step = null;
    for (let i = 1; i < points.length; i += 1) {
      if (points[i].first) continue;
      const age = Math.min(STROKE_STEPS - 1, Math.floor((now - points[i].at) / STROKE_MS * STROKE_STEPS));
      const [x0, y0] = place(points[i - 1]);
      const [x1, y1] = place(points[i]);
      const begins = i === 1 || points[i - 1].first;
      if (step !== age || begins) {
        if (step !== null) context.stroke();
        step = age;
        context.beginPath();
        context.globalAlpha = 0.95 * (1 - age / STROKE_STEPS);
        context.lineWidth = 1.25 + 2.25 * (1 - age / STROKE_STEPS);
        const [x, y] = begins ? [x0, y0] : middle(place(points[i - 2]), [x0, y0]);
        context.moveTo(x, y);
      }
      context.quadraticCurveTo(x0, y0, ...middle([x0, y0], [x1, y1]));
    }
    if (step !== null) context.stroke();
    context.globalAlpha = 1;
  }

  function middle([x0, y0], [x1, y1]) {
    return [(x0 + x1) / 2, (y0 + y1) / 2];
  }

  function drawHead(context, peer, now, isNamed) {
    const { points } = peer;
    const last = points[points.length - 1];
    const before = points.length > 1 && !last.first ? points[points.length - 2] : last;
    const place = (point) => [point.x * board.width, point.y * board.height];
    const [x, y] = middle(place(before), place(last));
    context.globalAlpha = Math.min(1, 2 * (1 - (now - last.at) / STROKE_MS));
    context.beginPath();
    context.arc(x, y, 5.5, 0, 2 * Math.PI);
    context.fillStyle = colourOf(peer);
    context.strokeStyle = theme.surface;
    context.lineWidth = 2;
    context.fill();
    context.stroke();
    if (isNamed) drawLabel(context, nameOf(peer), x, y);
    context.globalAlpha = 1;
  }

  function drawLabel(context, name, x, y) {
    context.font = theme.boardFont;
    context.textBaseline = 'middle';
    context.textAlign = 'left';
    const width = context.measureText(name).width;
    const left = x + 12 + width > board.width - 4 ? x - 12 - width : x + 12;
    const top = Math.min(board.height - 10, Math.max(10, y - 12));
    context.lineWidth = 4;
    context.lineJoin = 'round';
    context.strokeStyle = theme.surface;
    context.strokeText(name, left, top);
    context.fillStyle = theme.text;
    context.fillText(name, left, top);
  }

  // Messages.

  let messagesNew = [];

  function addMessage(peer, event) {
    if (typeof event.text !== 'string') return;
    // The first cut is cheap; the second one does not split a surrogate pair.
    const cut = Array.from(event.text.slice(0, 2 * MESSAGE_CHARS_MAX)).slice(0, MESSAGE_CHARS_MAX).join('');
    const text = cut.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ').trim();
    if (text === '') return;
    messagesNew.push({ name: nameOf(peer), colour: colourOf(peer), text, at: new Date() });
    if (messagesNew.length > MESSAGES_MAX) messagesNew.shift();
    if (messagesNew.length === 1) setTimeout(showMessages, 30);
  }

  function showMessages() {
    const list = $('messages');
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...messagesNew.map(messageItem));
    messagesNew = [];
    while (list.childElementCount > MESSAGES_MAX) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  function messageItem(message) {
    const item = element('div', 'message');
    const time = element('time', '', message.at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
    time.dateTime = message.at.toISOString();
    const said = element('span', 'said', message.text);
    said.dir = 'auto';
    item.append(swatch(message.colour), element('span', 'who', message.name), time, said);
    return item;
  }

  function submitMessage(event) {
    event.preventDefault();
    const text = $('text').value.trim();
    if (text === '' || openedAt === null) return;
    sendEvent('say', { text });
    $('text').value = '';
  }

  // Latencies.

  const unanswered = { trip: 0 };
  const echoes = new Map(); // number => time of sending
  let echoNumber = 0;
  let turn = 0;

  function measure() {
    if (openedAt === null || document.hidden) return;
    turn += 1;
    if (turn % 2 === 0) ping();
    else echo();
  }

  function ping() {
    if (unanswered.trip >= UNANSWERED_MAX) return;
    const [client, sentRun, sentAt] = [qio, run, performance.now()];
    unanswered.trip += 1;
    qio.send('/qio/ping', null, (_data, _reply, code) => {
      if (qio !== client || run !== sentRun) return;
      unanswered.trip -= 1;
      if (code === 200) trip.add(performance.now() - sentAt);
    });
  }

  function echo() {
    const now = performance.now();
    for (const [number, sentAt] of echoes) {
      if (now - sentAt > ECHO_LOST_MS) echoes.delete(number);
    }
    if (relay !== 'available' || echoes.size >= UNANSWERED_MAX) return;
    echoNumber += 1;
    echoes.set(echoNumber, performance.now());
    qio.send(ECHO, echoNumber, null);
  }

  function onEcho(number) {
    const sentAt = echoes.get(number);
    if (sentAt === undefined) return;
    echoes.delete(number);
    delivery.add(performance.now() - sentAt);
  }

  /** A chart of the last minute, with its figures. */
  class Chart {
    constructor(id, colour) {
      this.root = $(id);
      this.canvas = this.root.querySelector('canvas');
      this.noteNode = this.root.querySelector('.plot-note');
      this.colour = colour;
      this.context = null;
      this.width = 0;
      this.height = 0;
      // Ring buffers: sample `i` is at `i % SAMPLES_MAX`.
      this.times = new Float64Array(SAMPLES_MAX);
      this.values = new Float64Array(SAMPLES_MAX);
      this.begin = 0;
      this.end = 0;
      this.sorted = new Float64Array(0);
    }

    add(ms) {
      this.times[this.end % SAMPLES_MAX] = performance.now();
      this.values[this.end % SAMPLES_MAX] = Math.max(ms, 0.001);
      this.end += 1;
      this.begin = Math.max(this.begin, this.end - SAMPLES_MAX);
      this.showFigure('now', ms);
    }

    note(text) {
      this.noteNode.hidden = text === null;
      if (text === null) return;
      setText(this.noteNode, text);
      if (this.context !== null) this.context.clearRect(0, 0, this.width, this.height);
    }

    /** Drops samples that are older than the window, and sorts the others for the percentiles. */
    update(now) {
      while (this.begin < this.end && now - this.times[this.begin % SAMPLES_MAX] > WINDOW_MS) this.begin += 1;
      const values = new Float64Array(this.end - this.begin);
      for (let i = this.begin; i < this.end; i += 1) values[i - this.begin] = this.values[i % SAMPLES_MAX];
      this.sorted = values.sort();
      this.showFigure('p50', this.percentile(50));
      this.showFigure('p99', this.percentile(99));
      if (values.length === 0) this.showFigure('now', undefined);
    }

    /** Returns the smallest value that at least `percent` percent of the samples do not exceed. */
    percentile(percent) {
      return this.sorted[Math.ceil(this.sorted.length * percent / 100) - 1];
    }

    showFigure(name, ms) {
      setText(this.root.querySelector(`[data-figure=${name}]`), ms === undefined ? '–' : milliseconds(ms));
    }

    draw(now) {
      if (this.context === null || !this.noteNode.hidden) return;
      const { context, width, height } = this;
      const frame = { left: 52, right: width - 8, top: 8, bottom: height - 22 };
      const ticks = ticksOf(this.sorted[0], this.sorted[this.sorted.length - 1]);
      const low = Math.log(ticks[0]);
      const high = Math.log(ticks[ticks.length - 1]);
      const x = (at) => frame.right - (now - at) / WINDOW_MS * (frame.right - frame.left);
      const y = (ms) => frame.bottom - (Math.log(ms) - low) / (high - low) * (frame.bottom - frame.top);
      context.clearRect(0, 0, width, height);
      drawAxes(context, frame, ticks, y);
      context.save();
      context.beginPath();
      context.rect(frame.left, 0, frame.right - frame.left + 4, frame.bottom);
      context.clip();
      this.drawMedian(frame, y);
      this.drawSamples(frame, x, y);
      context.restore();
    }

    drawMedian(frame, y) {
      const median = this.percentile(50);
      if (median === undefined) return;
      const { context } = this;
      context.strokeStyle = theme[this.colour];
      context.globalAlpha = 0.55;
      context.lineWidth = 1;
      context.setLineDash([3, 4]);
      context.beginPath();
      context.moveTo(frame.left, Math.round(y(median)) + 0.5);
      context.lineTo(frame.right, Math.round(y(median)) + 0.5);
      context.stroke();
      context.setLineDash([]);
      context.globalAlpha = 1;
    }

    drawSamples(frame, x, y) {
      const { context } = this;
      context.strokeStyle = theme[this.colour];
      context.fillStyle = theme[this.colour];
      context.lineJoin = 'round';
      context.lineWidth = 1.5;
      let from = this.begin;
      for (let i = this.begin; i < this.end; i += 1) {
        const isLast = i + 1 === this.end;
        if (!isLast && this.times[(i + 1) % SAMPLES_MAX] - this.times[i % SAMPLES_MAX] < LINE_BREAKS_MS) continue;
        this.drawLine(frame, x, y, from, i);
        from = i + 1;
      }
      if (this.end === this.begin) return;
      const last = (this.end - 1) % SAMPLES_MAX;
      context.beginPath();
      context.arc(x(this.times[last]), y(this.values[last]), 3, 0, 2 * Math.PI);
      context.fill();
    }

    drawLine(frame, x, y, from, to) {
      const { context } = this;
      const place = (i) => [x(this.times[i % SAMPLES_MAX]), y(this.values[i % SAMPLES_MAX])];
      context.beginPath();
      for (let i = from; i <= to; i += 1) context.lineTo(...place(i));
      context.stroke();
      context.lineTo(place(to)[0], frame.bottom);
      context.lineTo(place(from)[0], frame.bottom);
      context.globalAlpha = 0.1;
      context.fill();
      context.globalAlpha = 1;
    }
  }

  const trip = new Chart('trip', 'trip');
  const delivery = new Chart('delivery', 'delivery');

  /**
   * Returns the grid values of a logarithmic scale (1, 2, 5, 10 and so on) that covers `least` to `most`. The scale has
   * at least one decade, because a smaller range would exaggerate small changes. A larger scale has whole decades.
   */
  function ticksOf(least = 0.2, most = 2) {
    const digits = [1, 2, 5];
    const value = (step) => Number(`${digits[step % 3]}e${Math.floor(step / 3) - 3}`);
    let first = 0;
    let last = 24; // 0.001 ms to 100 s
    while (first < 21 && value(first + 1) <= least) first += 1;
    while (last > first + 3 && value(last - 1) >= most) last -= 1;
    const decades = last - first > 3;
    if (decades) [first, last] = [Math.floor(first / 3) * 3, Math.ceil(last / 3) * 3];
    const ticks = [];
    for (let step = first; step <= last; step += decades ? 3 : 1) ticks.push(value(step));
    return ticks;
  }

  function drawAxes(context, frame, ticks, y) {
    context.font = theme.axisFont;
    context.fillStyle = theme.muted;
    context.strokeStyle = theme.grid;
    context.lineWidth = 1;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    for (const tick of ticks) {
      const at = Math.round(y(tick)) + 0.5;
      context.beginPath();
      context.moveTo(frame.left, at);
      context.lineTo(frame.right, at);
      context.stroke();
      context.fillText(tick < 1000 ? `${tick} ms` : `${tick / 1000} s`, frame.left - 8, at);
    }
    context.textBaseline = 'alphabetic';
    const bottom = frame.bottom + 16;
    for (const [part, align, label] of [[0, 'left', '60 s ago'], [0.5, 'center', '30 s'], [1, 'right', 'now']]) {
      context.textAlign = align;
      context.fillText(label, frame.left + part * (frame.right - frame.left), bottom);
    }
  }

  function milliseconds(ms) {
    const digits = ms < 9.995 ? 2 : ms < 99.95 ? 1 : 0;
    return `${ms.toFixed(digits)} ms`;
  }

  function drawCharts() {
    if (document.hidden) return;
    const now = performance.now();
    trip.draw(now);
    delivery.draw(now);
  }

  // Canvases: scaled to the pixels of the screen, with the colours of the colour scheme.

  const theme = {};

  function readTheme() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['surface', 'text', 'muted', 'grid', 'trip', 'delivery']) {
      theme[name] = style.getPropertyValue(`--${name}`).trim();
    }
    const family = getComputedStyle(document.body).fontFamily;
    theme.axisFont = `11px ${family}`;
    theme.boardFont = `600 12px ${family}`;
    drawAll();
  }

  function drawAll() {
    drawCharts();
    if (board.context !== null) drawBoardSoon();
  }

  const resized = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const owner = [board, trip, delivery].find(({ canvas }) => canvas === target);
      fit(owner, contentRect.width, contentRect.height);
    }
    drawAll();
  });

  function fit(owner, width, height) {
    const ratio = window.devicePixelRatio || 1;
    owner.width = width;
    owner.height = height;
    owner.canvas.width = Math.round(width * ratio);
    owner.canvas.height = Math.round(height * ratio);
    owner.context = owner.canvas.getContext('2d');
    owner.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  // Examples.

  function showExamples() {
    const here = location.origin;
    $('snippet-script').textContent = [
      `<script src="${here}/quickio.js"></script>`,
      '<script>',
      '  const qio = new QuickIO();',
      '',
      "  qio.on('/relay/room', (data) => console.log(data.text));",
      "  qio.send('/relay/room', { text: 'hello' });",
      '</script>',
    ].join('\n');
    $('snippet-module').textContent = [
      `import QuickIO from '${here}/quickio.mjs';`,
      '',
      `const qio = new QuickIO('${here}');`,
      '',
      "qio.on('/relay/room', (data) => console.log(data.text));",
      "await qio.send('/relay/room', { text: 'hello' });",
    ].join('\n');
  }

  async function copy(event) {
    const button = event.currentTarget;
    const source = $(button.dataset.copy);
    const done = await copyText(source);
    button.textContent = done ? 'Copied' : 'Press Ctrl+C';
    setText($('copied'), done ? 'Copied' : 'Text selected. Press Ctrl+C to copy it');
    setTimeout(() => {
      button.textContent = 'Copy';
      setText($('copied'), '');
    }, 1_500);
  }

  /**
   * Copies a text to the clipboard. Browsers allow the clipboard API only on secure pages; on other pages the text is
   * selected and copied with the old command, if that works. Returns whether the text was copied.
   */
  async function copyText(source) {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(source);
      return document.execCommand('copy');
    }
  }

  // Start.

  function everySecond() {
    const now = performance.now();
    trip.update(now);
    delivery.update(now);
    checkAttempts();
    showSince();
    showPeers();
    showCounts();
    showHint();
    if (now - lastPresenceAt > PRESENCE_EVERY_MS) sendPresence();
  }

  function start() {
    showExamples();
    readTheme();
    for (const { canvas } of [board, trip, delivery]) resized.observe(canvas);
    darkScheme.addEventListener('change', readTheme);
    document.addEventListener('visibilitychange', drawAll);

    const area = $('board');
    area.addEventListener('pointermove', onPointer);
    area.addEventListener('pointerdown', onPointer);
    for (const leaving of ['pointerleave', 'pointercancel', 'pointerup']) {
      area.addEventListener(leaving, () => { pointer.isNew = true; });
    }
    $('pen').addEventListener('click', () => setPen(!pen.on));
    $('form').addEventListener('submit', submitMessage);
    for (const button of document.querySelectorAll('[data-copy]')) button.addEventListener('click', copy);
    // Registered before the library's own handler, which ends the connection.
    addEventListener('pagehide', () => sendEvent('bye'));

    const requested = document.querySelector(`[name=transport][value="${location.hash.slice(1).replace(/\W/g, '')}"]`);
    if (requested) requested.checked = true;
    $('transports').addEventListener('change', chooseTransport);
    connect(document.querySelector('[name=transport]:checked').value);

    setInterval(everySecond, 1_000);
    setInterval(measure, MEASURE_EVERY_MS);
    setInterval(() => drawAutomatically(performance.now()), POINT_EVERY_MS);
    setInterval(drawCharts, reducedMotion.matches ? 1_000 : 100);
  }

  start();
})();
