// The page at `/`: which transport is in use, a board that tabs share by the application `relay`, and latencies.
//
// Other clients can send anything to the board's path. So what comes is checked member by member, shown as text only,
// and everything that is kept of it has a bound.

(() => {
  'use strict';

  const $ = (id) => document.getElementById(id);

  // Where the tabs of this page meet, and where this tab sends to itself.
  const BOARD = '/relay/quickio-page/board';
  const ECHO = `/relay/quickio-page/echo/${randomHex(16)}`;

  const PEERS_MAX = 64; // remembered; the one that was silent longest goes first
  const PEERS_SHOWN_MAX = 5;
  const PEERS_NAMED_MAX = 12; // on the board; the names of more would hide the strokes
  const PEER_SILENT_MS = 10_000; // then a tab has gone
  const HERE_EVERY_MS = 3_000;
  const GREET_EVERY_MS = 300; // where others come
  const POINTS_MAX = 256; // of one tab's strokes
  const STROKE_MS = 5_500; // then a stroke has faded
  const STROKE_STEPS = 16; // of fading, each drawn as one line
  const POINT_EVERY_MS = 25;
  const POINTER_RESTS_MS = 1_200; // then a pen that was drawing goes on
  const MESSAGES_MAX = 40;
  const MESSAGE_CHARS_MAX = 200;
  const MEASURE_EVERY_MS = 125; // a ping and an echo in turns
  const UNANSWERED_MAX = 4; // more are not asked: a slow transport would never get rid of them
  const ECHO_LOST_MS = 30_000;
  const WINDOW_MS = 60_000;
  const SAMPLES_MAX = 512; // more than a window has
  const LINE_BREAKS_MS = 3_000; // no line between samples that are further apart

  const COLOURS = [
    ['Teal', '#0d9488'], ['Blue', '#3b82f6'], ['Violet', '#8b5cf6'], ['Rose', '#e11d63'],
    ['Orange', '#ea580c'], ['Green', '#16a34a'], ['Magenta', '#c026d3'], ['Gold', '#b7791f'],
  ];
  const ANIMALS = [
    'Heron', 'Otter', 'Finch', 'Lynx', 'Hare', 'Crane', 'Marten', 'Wren',
    'Fox', 'Swift', 'Badger', 'Tern', 'Stoat', 'Owl', 'Newt', 'Kite',
  ];
  const TRANSPORTS = { websocket: 'WebSocket', stream: 'Event stream', poll: 'Long polling' };

  const MESSAGES_NONE = $('messages-none').textContent;

  const me = randomHex(4);
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  const dark = matchMedia('(prefers-color-scheme: dark)');

  function randomHex(bytes) {
    const random = crypto.getRandomValues(new Uint8Array(bytes));
    return Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  /** An element with this class and text; never markup. */
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Changes a text only where it is another one, so that nothing is laid out or read aloud for no reason. */
  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  // The connection.

  let qio = null;
  let subscribe = null; // to what this page wants of `qio`
  let run = 0; // which connection of this tab this is: the board's numbers begin anew with each
  let openedAt = null;
  let opened = 0;
  let relay = 'unknown'; // or 'there', or 'missing'

  function connect(choice) {
    const before = qio;
    const options = choice === 'auto' ? {} : { transports: [choice] };
    const made = new QuickIO(location.origin, options);
    qio = made;
    if (before) before.close();
    // What an earlier one still has to say is of no interest.
    const ifCurrent = (fn) => (...args) => { if (qio === made) fn(...args); };
    made.on('/open', ifCurrent(open));
    made.on('/close', ifCurrent(() => showState('connecting')));
    made.on('/error', ifCurrent((error) => setText($('why'), error.message)));
    subscribe = () => {
      made.on(BOARD, ifCurrent(receive), ifCurrent(refused));
      made.on(ECHO, ifCurrent(echoed), () => {});
    };
    subscribe();
    opened = 0;
    setText($('why'), '');
    showState('connecting');
  }

  function open() {
    opened += 1;
    run += 1;
    sequence = 0;
    unanswered.trip = 0;
    echoes.clear();
    for (const peer of peers.values()) peer.run = null;
    // Perhaps it is another server by now.
    if (relay === 'missing') {
      setRelay('unknown');
      subscribe();
    }
    setText($('why'), '');
    showState('open');
    sayHere();
  }

  /** Attempts that fail go on without a word: whether they do is seen by looking. */
  function lookAtAttempts() {
    if (openedAt === null && qio.state === 'waiting') showState('failed');
  }

  function refused(error) {
    const why = error.code === 404
      ? 'This server runs without the demo.'
      : `This server refuses the demo: ${error.message}.`;
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
    setText($('messages-none'), missing ? 'Messages need it as well.' : MESSAGES_NONE);
    delivery.note(missing ? 'Measured where the server runs the application relay.' : null);
    showHint();
  }

  function showState(state) {
    openedAt = state === 'open' ? performance.now() : null;
    $('state').dataset.state = state;
    const name = TRANSPORTS[qio.transport];
    setText($('state-text'), { open: name, connecting: 'Connecting', failed: 'Not connected, trying again' }[state]);
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

  // What tabs tell each other. Each numbers its events from 1 in each run; so whoever has heard one knows the next.

  const peers = new Map(); // by id; the one heard last is last
  const counts = { events: 0, disorder: 0, missed: 0 };
  let sequence = 0;
  let myHue = parseInt(me.slice(0, 2), 16) % COLOURS.length;
  let lastHere = -Infinity;

  function tell(kind, more) {
    if (openedAt === null || relay === 'missing') return;
    sequence += 1;
    qio.send(BOARD, { from: me, run, n: sequence, hue: myHue, kind, ...more }, null);
  }

  function sayHere() {
    lastHere = performance.now();
    tell('here');
  }

  function receive(event) {
    if (!isEvent(event)) return;
    setRelay('there');
    counts.events += 1;
    const peer = heard(event);
    if (event.kind === 'pen') addPoint(peer, event);
    if (event.kind === 'say') addMessage(peer, event);
    if (event.kind === 'bye') peers.delete(event.from);
    if (event.from === me) return;
    avoidClash(peer);
    // In a hidden tab timers hardly run, but what arrives arrives.
    const now = performance.now();
    if (now - lastHere > (peer.isNew ? GREET_EVERY_MS : HERE_EVERY_MS)) sayHere();
    peer.isNew = false;
    drawOn(now);
  }

  function isEvent(event) {
    return typeof event === 'object' && event !== null
      && typeof event.from === 'string' && /^[0-9a-f]{8}$/.test(event.from)
      && Number.isSafeInteger(event.n) && event.n > 0
      && Number.isSafeInteger(event.run)
      && COLOURS[event.hue] !== undefined && Number.isInteger(event.hue)
      && ['here', 'pen', 'say', 'bye'].includes(event.kind);
  }

  /** The peer that sent it, which is thereby the last one heard; counts what came before its turn or never came. */
  function heard(event) {
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

  /** Of two tabs with the same colour the one with the greater id takes another, where one is left. */
  function avoidClash(peer) {
    if (peer.hue !== myHue || peer.id > me) return;
    const taken = new Set(Array.from(peers.values(), (other) => other.hue));
    const free = COLOURS.findIndex((_, hue) => !taken.has(hue));
    if (free < 0) return;
    myHue = free;
    sayHere();
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
    const made = element('span', 'swatch');
    made.style.backgroundColor = colour;
    return made;
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

  // The board: lines of points, which fade.

  const board = { canvas: $('board-canvas'), context: null, width: 0, height: 0, asked: false, drawnAt: 0 };
  const pointer = { at: -Infinity, isNew: true };
  const pen = { on: false, startedAt: 0, at: 0, isNew: true };

  function addPoint(peer, event) {
    if (!Number.isFinite(event.x) || !Number.isFinite(event.y)) return;
    const within = (value) => Math.min(1, Math.max(0, value));
    const point = { x: within(event.x), y: within(event.y), first: event.first === true, at: performance.now() };
    peer.points.push(point);
    if (peer.points.length > POINTS_MAX) peer.points.shift();
    showHint();
    drawBoardSoon();
  }

  function showHint() {
    $('board-hint').hidden = relay === 'missing' || [...peers.values()].some((peer) => peer.points.length > 0);
  }

  function pointed(event) {
    const now = performance.now();
    const first = pointer.isNew || now - pointer.at > POINTER_RESTS_MS;
    if (!first && now - pointer.at < POINT_EVERY_MS) return;
    const box = board.canvas.getBoundingClientRect();
    tellPoint((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, first);
    pointer.at = now;
    pointer.isNew = false;
    pen.isNew = true;
  }

  function tellPoint(x, y, first) {
    const rounded = (value) => Math.round(value * 10_000) / 10_000;
    tell('pen', { x: rounded(x), y: rounded(y), ...(first && { first }) });
  }

  function setPen(on) {
    pen.on = on;
    pen.isNew = true;
    pen.at = performance.now();
    pen.startedAt = pen.at;
    $('pen').setAttribute('aria-pressed', String(on));
  }

  /** Lets the pen draw what it has to have drawn by now; a timer that comes late makes it draw several points. */
  function drawOn(now) {
    if (!pen.on || now - pen.at < POINT_EVERY_MS || now - pointer.at < POINTER_RESTS_MS) return;
    const from = Math.max(pen.at, now - 1_000);
    for (let at = from + POINT_EVERY_MS; at <= now; at += POINT_EVERY_MS) {
      const [x, y] = figure((at - pen.startedAt) / 1000);
      tellPoint(x, y, pen.isNew);
      pen.isNew = false;
      pen.at = at;
    }
  }

  /** Where the pen is after these seconds: two swings, whose proportion is this tab's own, and which drift. */
  function figure(seconds) {
    const seed = parseInt(me.slice(4), 16);
    const [a, b] = [[2, 3], [3, 4], [1, 2], [3, 5], [3, 2]][seed % 5];
    const turn = seconds * 0.9 / Math.max(a, b) * 2.4;
    const drift = seconds * 0.05 + seed;
    return [0.5 + 0.4 * Math.sin(a * turn + drift), 0.5 + 0.38 * Math.sin(b * turn)];
  }

  function drawBoardSoon() {
    if (board.asked || document.hidden) return;
    board.asked = true;
    requestAnimationFrame(drawBoard);
  }

  function drawBoard(now) {
    board.asked = false;
    if (calm.matches && now - board.drawnAt < 400) {
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

  /** Points as curves from middle to middle; those of the same age, roughly, as one line. */
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
    const [x, y] = middle([before.x * board.width, before.y * board.height], [last.x * board.width, last.y * board.height]);
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
    // The first cut is cheap, the second one leaves no half of a character.
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

  function sayMessage(event) {
    event.preventDefault();
    const text = $('text').value.trim();
    if (text === '' || openedAt === null) return;
    tell('say', { text });
    $('text').value = '';
  }

  // Latencies.

  const unanswered = { trip: 0 };
  const echoes = new Map(); // when each was sent, by its number
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
    const [asked, sentRun, sentAt] = [qio, run, performance.now()];
    unanswered.trip += 1;
    qio.send('/qio/ping', null, (_data, _reply, code) => {
      if (qio !== asked || run !== sentRun) return;
      unanswered.trip -= 1;
      if (code === 200) trip.add(performance.now() - sentAt);
    });
  }

  function echo() {
    const now = performance.now();
    for (const [number, sentAt] of echoes) {
      if (now - sentAt > ECHO_LOST_MS) echoes.delete(number);
    }
    if (relay !== 'there' || echoes.size >= UNANSWERED_MAX) return;
    echoNumber += 1;
    echoes.set(echoNumber, performance.now());
    qio.send(ECHO, echoNumber, null);
  }

  function echoed(number) {
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
      // A ring: sample `i` is at `i % SAMPLES_MAX`.
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

    /** Drops what is older than the window; sorts the rest for the percentiles. */
    settle(now) {
      while (this.begin < this.end && now - this.times[this.begin % SAMPLES_MAX] > WINDOW_MS) this.begin += 1;
      const values = new Float64Array(this.end - this.begin);
      for (let i = this.begin; i < this.end; i += 1) values[i - this.begin] = this.values[i % SAMPLES_MAX];
      this.sorted = values.sort();
      this.showFigure('p50', this.percentile(50));
      this.showFigure('p99', this.percentile(99));
      if (values.length === 0) this.showFigure('now', undefined);
    }

    /** The smallest value that at least so many percent do not exceed. */
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
   * The values of the scale's lines, which goes by ratios: 1, 2, 5, 10 and so on, around what is to be shown. A decade
   * at least, as on less every breeze looks like a storm; whole decades where it is more.
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

  // Canvases: as many pixels as the screen has, and the colours of the scheme.

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
    setText($('copied'), done ? 'Copied' : 'Selected, not copied');
    setTimeout(() => {
      button.textContent = 'Copy';
      setText($('copied'), '');
    }, 1_500);
  }

  /** Browsers give the clipboard to secure pages only; on others the old way, or the selection itself, has to do. */
  async function copyText(source) {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(source);
      return document.execCommand('copy');
    }
  }

  // The start.

  function everySecond() {
    const now = performance.now();
    trip.settle(now);
    delivery.settle(now);
    lookAtAttempts();
    showSince();
    showPeers();
    showCounts();
    showHint();
    if (now - lastHere > HERE_EVERY_MS) sayHere();
  }

  function start() {
    showExamples();
    readTheme();
    for (const { canvas } of [board, trip, delivery]) resized.observe(canvas);
    dark.addEventListener('change', readTheme);
    document.addEventListener('visibilitychange', drawAll);

    const area = $('board');
    area.addEventListener('pointermove', pointed);
    area.addEventListener('pointerdown', pointed);
    for (const leaving of ['pointerleave', 'pointercancel', 'pointerup']) {
      area.addEventListener(leaving, () => { pointer.isNew = true; });
    }
    $('pen').addEventListener('click', () => setPen(!pen.on));
    $('form').addEventListener('submit', sayMessage);
    for (const button of document.querySelectorAll('[data-copy]')) button.addEventListener('click', copy);
    // Before the library's own, which ends the connection.
    addEventListener('pagehide', () => tell('bye'));

    const wished = document.querySelector(`[name=transport][value="${location.hash.slice(1).replace(/\W/g, '')}"]`);
    if (wished) wished.checked = true;
    $('transports').addEventListener('change', chooseTransport);
    connect(document.querySelector('[name=transport]:checked').value);

    setInterval(everySecond, 1_000);
    setInterval(measure, MEASURE_EVERY_MS);
    setInterval(() => drawOn(performance.now()), POINT_EVERY_MS);
    setInterval(drawCharts, calm.matches ? 1_000 : 100);
  }

  start();
})();
