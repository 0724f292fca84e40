"use strict";
// One page without a build step: the grid answers from /api/cards, a clip from /api/clip, frames are JPEGs drawn on
// canvases by one clock, so panes cannot get out of step. All text from the dataset goes in by textContent.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") ?? "";
const address = (path, values = {}) => `${path}?${new URLSearchParams({ ...values, token })}`;

// How unibench.tasks draws what is wrong: labels agree or not, numbers are off by something.
const ERROR = "black is right, over red and yellow to white; grey unknown";
const ERRORS = {
  depth: "relative error, black 0 over red and yellow to white .5; grey unknown",
  flow: "end-point error, black 0 over red and yellow to white 5 px; grey unknown",
  segmentation: "grey is right, red another object or none, blue too much",
  densepose: "grey is right, red another part or none, blue too much",
};
// Okabe and Ito's colours: told apart with any colour vision. A number stands beside each box, too.
const TRACKS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const LEGENDS = {
  depth: "yellow is near, violet is far, black unknown",
  flow: "hue is direction, saturation speed; black unknown",
  segmentation: "a colour an object",
  skeleton: "a colour a limb",
  densepose: "a colour a part, lines of equal U and V",
  normals: "red to the right, green up, blue towards the camera; black sky",
};
const state = {
  about: null,
  query: { words: "", choices: {}, ranges: {}, absent: null, flagged: false, sort: "key", order: "ascending" },
  total: 0,
  clip: null,
};

const EVERYTHING = JSON.stringify(state.query);

// An export has no server: its own script answers from files.
const served = typeof offline === "undefined";

async function ask(path, values, signal) {
  if (!served) {
    const found = await offline.ask(path, values);
    signal?.throwIfAborted(); // files cannot be asked to stop, but what comes too late is not taken
    return found;
  }
  const answer = await fetch(address(path, values), { signal });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}
const json = async (path, values, signal) => (await ask(path, values, signal)).json();
function report(error) {
  if (error.name === "AbortError") return;
  $("error").textContent = error instanceof TypeError ? "the server has gone; start `openuni view` again" : error.message;
  $("error").hidden = false;
}
const guarded = (work) => (...given) => Promise.resolve(work(...given)).then(() => {}, report);
function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
const rounded = (value) => (typeof value !== "number" ? String(value ?? "unknown") : Number.isInteger(value) ? String(value) : value.toPrecision(6).replace(/\.?0+($|e)/, "$1"));

const signed = (value, digits) => (value > 0 ? "+" : "") + value.toPrecision(digits);

// ---- The grid: only the cards in sight exist.

const CARD = { width: 232, height: 212, gap: 10 };
const cards = new Map(); // number in the result → element
const pages = new Map(); // page → promise of its cards
const PAGE = 60;
let generation = 0;

function columns() {
  return Math.max(1, Math.floor(($("grid").clientWidth - CARD.gap) / (CARD.width + CARD.gap)));
}
const encodedQuery = () => JSON.stringify(state.query);
// The key of the clip that the address names. The address goes before the page, which follows it a moment later.
const openedKey = () => new URLSearchParams(location.hash.slice(1)).get("clip");

async function search() {
  // Before the first answer, and beside an open clip (whose address would be lost), the query waits: the grid asks it.
  if (!state.about || openedKey() !== null) return;
  generation += 1;
  const mine = generation;
  history.replaceState(null, "", `#q=${encodeURIComponent(encodedQuery())}`);
  const first = await json("/api/cards", { query: encodedQuery(), first: 0, count: PAGE }).catch((error) => {
    if (mine === generation) throw error;
  });
  if (mine !== generation) return;
  $("error").hidden = true;
  for (const card of cards.values()) card.remove();
  cards.clear();
  pages.clear();
  pages.set(0, Promise.resolve(first.cards));
  state.total = first.total;
  $("count").textContent = `${first.total.toLocaleString("en")} of ${state.about.clips.toLocaleString("en")} clips`;
  $("grid").scrollTop = 0;
  layOut();
  await drawHistogram();
}

function page(number) {
  if (!pages.has(number)) {
    const found = json("/api/cards", { query: encodedQuery(), first: number * PAGE, count: PAGE }).then(({ cards: all }) => all);
    pages.set(number, found);
    found.catch(() => { if (pages.get(number) === found) pages.delete(number); }); // the next who looks asks again
  }
  return pages.get(number);
}

function layOut() {
  if ($("grid-page").hidden) return; // it has no width
  const across = columns(), step = CARD.height + CARD.gap, grid = $("grid");
  const width = Math.floor((grid.clientWidth - CARD.gap) / across) - CARD.gap; // they fill the row
  // Browsers lose count beyond some ten million pixels: a taller grid is scrolled in proportion.
  const tall = Math.ceil(state.total / across) * step + CARD.gap, shown = Math.min(tall, 8e6);
  $("cards").style.height = `${shown}px`;
  const reach = Math.max(shown - grid.clientHeight, 1);
  const top = tall === shown ? grid.scrollTop : (grid.scrollTop / reach) * (tall - grid.clientHeight);
  const shift = grid.scrollTop - top;
  const first = Math.max(0, Math.floor(top / step) - 1) * across;
  const last = Math.min(state.total, (Math.ceil((top + grid.clientHeight) / step) + 1) * across);
  for (const [number, card] of cards) {
    if (number < first || number >= last) { card.remove(); cards.delete(number); }
  }
  for (let number = first; number < last; number += 1) {
    let card = cards.get(number);
    if (!card) { card = emptyCard(number); cards.set(number, card); $("cards").append(card); }
    card.style.width = `${width}px`;
    card.style.height = `${CARD.height}px`;
    card.style.left = `${CARD.gap + (number % across) * (width + CARD.gap)}px`;
    card.style.top = `${CARD.gap + Math.floor(number / across) * step + shift}px`;
  }
}

function emptyCard(number) {
  const card = element("button", "", "card");
  const mine = generation;
  card.type = "button";
  page(Math.floor(number / PAGE)).then((found) => {
    if (mine === generation && card.isConnected) fillCard(card, found[number % PAGE]);
  }, report);
  return card;
}

function fillCard(card, facts) {
  if (!facts) return;
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.fetchPriority = "low"; // a clip that is opened meanwhile goes first
  image.src = served ? address("/api/thumbnail", { key: facts.key }) : offline.thumbnail(facts.key);
  const what = element("div", facts.caption, "what");
  const lacks = element("div", facts.absent.length ? `lacks ${facts.absent.join(", ")}` : "", "what lacks");
  const value = facts.value === null ? "" : `${state.query.sort} ${rounded(facts.value)}`;
  card.replaceChildren(image, element("div", facts.key, "key"), element("div", value, "value"), what, lacks);
  card.setAttribute("aria-label", [facts.key, value, facts.caption, lacks.textContent].filter(Boolean).join(", "));
  card.classList.toggle("flagged", facts.key in state.about.flags);
  card.onclick = () => { location.hash = `clip=${encodeURIComponent(facts.key)}`; };
  card.onpointerenter = guarded(() => hoverPlay(card, image, facts));
}

let hovered = new AbortController(); // what plays under the pointer, until that leaves or a clip is opened
async function hoverPlay(card, image, facts) {
  const column = state.about.columns[0];
  if (facts.absent.includes(column)) return;
  hovered.abort();
  const leaving = hovered = new AbortController();
  card.onpointerleave = () => leaving.abort();
  const played = await frames({ key: facts.key, column, source: "" }, 0, Math.min(facts.frames, 64), leaving.signal);
  const canvas = element("canvas"), start = performance.now();
  canvas.width = facts.width;
  canvas.height = facts.height;
  leaving.signal.addEventListener("abort", () => canvas.replaceWith(image));
  image.replaceWith(canvas);
  const tick = async (now) => {
    if (leaving.signal.aborted || !canvas.isConnected) return;
    const bitmap = await decoded(played[Math.floor((Math.max(0, now - start) / 1000) * facts.fps) % played.length]);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

async function frames(place, first, count, signal) {
  const data = await (await ask("/api/frames", { ...place, first, count }, signal)).arrayBuffer();
  const view = new DataView(data), found = [];
  for (let at = 0; at < data.byteLength; ) {
    const size = view.getUint32(at, true);
    found.push(new Uint8Array(data, at + 4, size));
    at += 4 + size;
  }
  return found;
}

// Bytes become a blob only here: to hold every frame as one costs a copy into another process each.
const decoded = (jpeg) => createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));

// ---- Filters.

function options(select, names, labels = (name) => name) {
  select.replaceChildren(...names.map((name) => {
    const option = element("option", labels(name));
    option.value = name;
    return option;
  }));
}

function showFilters() {
  const { facets } = state;
  options($("sort"), ["key", ...facets.numbers]);
  for (const sort of $("compared").querySelectorAll("button")) sort.disabled = false;
  options($("field"), facets.numbers);
  const { sort } = state.about.begin, confidence = facets.numbers.find((name) => name.endsWith(".confidence"));
  if (facets.numbers.includes(sort)) $("field").value = sort; else if (confidence) $("field").value = confidence;
  const lacks = Object.entries(facets.absent).flatMap(([column, reasons]) => [
    [JSON.stringify([column, ""]), `${column}: any reason`],
    ...Object.entries(reasons).map(([reason, number]) => [JSON.stringify([column, reason]), `${column}: ${reason} (${number})`]),
  ]);
  const labels = new Map([["", "nothing in particular"], ...lacks]);
  options($("absent"), [...labels.keys()], (name) => labels.get(name).slice(0, 120));
  $("choices").replaceChildren(...Object.entries(facets.choices).map(([field, counts]) => choice(field, counts)));
}

function choice(field, counts) {
  const box = element("fieldset");
  box.append(element("legend", field));
  for (const [value, number] of Object.entries(counts)) {
    const label = element("label", "", "check"), input = element("input");
    input.type = "checkbox";
    input.dataset.field = field;
    input.value = value;
    input.checked = (state.query.choices[field] ?? []).includes(value);
    input.onchange = guarded(() => {
      const chosen = [...box.querySelectorAll("input:checked")].map((one) => one.value);
      if (chosen.length) state.query.choices[field] = chosen; else delete state.query.choices[field];
      return search();
    });
    label.append(input, element("span", value || "(none)"), element("span", String(number), "number"));
    box.append(label);
  }
  return box;
}

function writeControls() {
  const { query } = state;
  $("words").value = query.words;
  $("sort").value = query.sort;
  $("flagged").checked = query.flagged;
  $("absent").value = query.absent ? JSON.stringify(query.absent) : "";
  $("order").textContent = query.order === "ascending" ? "↑" : "↓";
  $("order").setAttribute("aria-label", `Order: ${query.order}`);
  for (const input of $("choices").querySelectorAll("input")) input.checked = (query.choices[input.dataset.field] ?? []).includes(input.value);
  $("ranges").replaceChildren(...Object.entries(query.ranges).map(([field, [low, high]]) => {
    const row = element("div", `${field}: ${rounded(low)} – ${rounded(high)}`, "range"), gone = element("button", "×");
    gone.type = "button";
    gone.setAttribute("aria-label", `Remove the range of ${field}`);
    gone.onclick = guarded(() => { delete query.ranges[field]; writeControls(); return search(); });
    row.append(gone);
    return row;
  }));
}

let histogram = null, histogramsAsked = 0;
async function drawHistogram(brush = null) {
  const field = $("field").value;
  if (!field || !state.facets) return;
  if (!brush) {
    histogramsAsked += 1;
    const mine = histogramsAsked, found = await json("/api/histogram", { query: encodedQuery(), field });
    if (mine !== histogramsAsked) return; // another was asked for meanwhile
    histogram = found;
  }
  const canvas = $("histogram").querySelector("canvas"), ratio = devicePixelRatio || 1;
  canvas.width = 240 * ratio;
  canvas.height = 90 * ratio;
  const pen = canvas.getContext("2d"), most = Math.max(...histogram.counts, 1), width = 240 / histogram.counts.length;
  const style = getComputedStyle(canvas);
  pen.scale(ratio, ratio);
  histogram.counts.forEach((count, at) => {
    const inside = brush && at >= Math.min(...brush) && at <= Math.max(...brush);
    pen.fillStyle = inside ? style.accentColor : style.color;
    const height = count ? Math.max(2, (count / most) * 86) : 0;
    pen.fillRect(at * width, 90 - height, width - 1, height);
  });
  const [low, high] = [histogram.edges[0], histogram.edges.at(-1)];
  const missing = histogram.missing ? element("span", `${histogram.missing.toLocaleString("en")} without`) : "";
  $("histogram").querySelector("figcaption").replaceChildren(element("span", rounded(low)), missing, element("span", rounded(high)));
}

function brushed() {
  const canvas = $("histogram").querySelector("canvas");
  let from = null, to = null;
  const keep = (bars) => {
    const [low, high] = [Math.min(...bars), Math.max(...bars)];
    state.query.ranges[histogram.field] = [histogram.edges[low], histogram.edges[high + 1]];
    writeControls();
    return search();
  };
  // By keyboard: arrows go to a bar, with shift they take in more bars, Enter keeps them.
  let bars = null;
  $("histogram").onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!histogram || (!step && event.key !== "Enter")) return;
    event.preventDefault();
    event.stopPropagation();
    if (!step) { if (bars) guarded(keep)(bars); bars = null; return; }
    const last = Math.max(0, Math.min(histogram.counts.length - 1, (bars?.[1] ?? (step > 0 ? -1 : histogram.counts.length)) + step));
    bars = [event.shiftKey && bars ? bars[0] : last, last];
    drawHistogram(bars);
    const [low, high] = [Math.min(...bars), Math.max(...bars)], count = histogram.counts.slice(low, high + 1).reduce((a, b) => a + b, 0);
    $("bars").textContent = `${rounded(histogram.edges[low])} to ${rounded(histogram.edges[high + 1])}: ${count.toLocaleString("en")} clips`;
  };
  const bin = (event) => Math.max(0, Math.min(histogram.counts.length - 1, Math.floor((event.offsetX / canvas.clientWidth) * histogram.counts.length)));
  canvas.onpointerdown = (event) => { if (histogram) { from = to = bin(event); canvas.setPointerCapture(event.pointerId); drawHistogram([from, to]); } };
  canvas.onpointermove = (event) => { if (from !== null) { to = bin(event); drawHistogram([from, to]); } };
  canvas.onpointerup = guarded(() => {
    if (from === null) return undefined;
    const kept = [from, to];
    from = null;
    return keep(kept);
  });
}

// ---- A clip: panes drawn by one clock.

const RUN = 16; // frames that the server decodes together
const MOST_KEPT = 256 << 20; // bytes
const kept = new Map(); // place → its frames as JPEG, and which runs of them are there; the longest unused first

// The frames of a column: those that were looked at before are asked for no more.
function framesOf(place, count) {
  const name = JSON.stringify(place), known = kept.get(name) ?? { jpegs: new Array(count).fill(null), runs: new Set() };
  kept.delete(name);
  kept.set(name, known);
  return known;
}

function forgetOld() {
  let bytes = 0;
  for (const [name, { jpegs }] of [...kept].reverse()) {
    for (const jpeg of jpegs) bytes += jpeg?.byteLength ?? 0;
    if (bytes > MOST_KEPT) kept.delete(name);
  }
}

// Where the colours of a flow point, for those who tell them apart; arrows say the same to everybody.
function wheel() {
  const image = element("img", "", "wheel");
  image.src = served ? address("/api/wheel") : "data/wheel.jpg";
  image.alt = "Colours of directions: the colour at the rim is that of motion towards it";
  return image;
}

class Pane {
  constructor(clip, column) {
    this.column = column;
    this.place = { key: clip.key, column: column.name, source: column.source };
    this.clip = clip;
    Object.assign(this, framesOf(this.place, clip.frames));
    this.bitmaps = new Map();
    this.root = element("section", "", "pane");
    this.root.dataset.source = column.source;
    const sure = column.confidence === null ? "" : `confidence ${column.confidence.toFixed(2)}`;
    this.name = column.source ? `${column.source}: ${column.name}` : column.name;
    const title = element("h2", this.name);
    title.append(element("span", column.expert), element("span", sure));
    title.title = [this.name, column.expert, sure].filter(Boolean).join(", ");
    this.root.append(title);
    this.root.setAttribute("aria-label", title.title);
    if (!column.present) { this.root.append(element("div", `absent: ${column.reason || "no reason recorded"}`, "absent")); return; }
    this.picture = element("canvas");
    this.lines = element("canvas");
    for (const canvas of [this.picture, this.lines]) { canvas.width = clip.width; canvas.height = clip.height; }
    const frame = element("div", "", "frame");
    this.mark = element("div", "", "mark");
    this.mark.hidden = true;
    frame.append(this.picture, this.lines, this.mark);
    this.reading = element("div", "", "reading");
    this.legend = element("div", column.source.startsWith("error") ? ERRORS[column.name] ?? ERROR : LEGENDS[column.name] ?? "", "legend");
    this.root.append(frame, this.legend, this.reading);
    this.lines.setAttribute("aria-hidden", "true");
    if (column.name === "flow" && !column.source.startsWith("error")) frame.after(wheel());
    this.picture.setAttribute("role", "img");
    this.picture.setAttribute("aria-label", `${this.name} of ${clip.key}`);
    frame.onpointermove = (event) => player.point(event, frame);
    frame.onpointerleave = () => player.point(null);
  }

  fail(error) {
    this.column = { ...this.column, present: false };
    this.root.replaceChildren(this.root.firstChild, element("div", error.message, "absent")); // a picture would stand still
  }

  // The numbers at the ends of its colours.
  async loadLegend(signal) {
    if (!["depth", "flow"].includes(this.column.name) || this.column.source.startsWith("error")) return;
    const { text } = await json("/api/legend", this.place, signal);
    if (text) this.legend.textContent = text;
  }

  // Motion on a lattice of one frame; asked for when it is shown.
  async loadArrows(number, signal) {
    if (this.column.name !== "flow" || this.column.source.startsWith("error") || this.arrows?.frame === number || this.asked === number) return;
    this.asked = number;
    const found = await json("/api/arrows", { ...this.place, frame: number }, signal);
    if (this.asked !== number) return; // those of another frame were asked for meanwhile
    this.arrows = { frame: number, ...found };
    player.changed();
  }

  // The frame asked for, decoded alone.
  async loadFrame(number, signal) {
    if (!this.column.present || this.jpegs[number]) return;
    try {
      const jpeg = await (await ask("/api/frame", { ...this.place, frame: number }, signal)).arrayBuffer();
      this.jpegs[number] ??= new Uint8Array(jpeg);
      player.changed();
    } catch (error) { this.failed(error); }
  }

  async loadRun(first, signal) {
    if (!this.column.present || this.runs.has(first)) return;
    try {
      const run = await frames(this.place, first, RUN, signal);
      // Also in place of a frame that came alone: the first was drawn before the clip's colours were known.
      run.forEach((jpeg, index) => { this.jpegs[first + index] = jpeg; this.bitmaps.delete(first + index); });
      this.runs.add(first);
      player.changed();
    } catch (error) { this.failed(error); }
  }

  failed(error) {
    if (error instanceof TypeError) { report(error); return; } // of the connection: it says nothing of this column
    if (error.name !== "AbortError" && this.column.present) { this.fail(error); player.changed(); }
  }

  async bitmap(number) {
    if (!this.bitmaps.has(number)) {
      const jpeg = this.jpegs[number];
      if (!jpeg) return null;
      const bitmap = decoded(jpeg);
      this.bitmaps.set(number, bitmap);
      bitmap.catch(() => this.bitmaps.delete(number)); // a browser short of memory may manage it the next time
      // Decoded frames are large: the oldest goes. It is not closed, for it may be being drawn.
      if (this.bitmaps.size > 24) this.bitmaps.delete(this.bitmaps.keys().next().value);
    }
    return this.bitmaps.get(number);
  }
}

const player = {
  panes: [], clip: null, people: new Map(), hiddenTracks: new Set(), place: null, frame: 0, playing: false, started: 0, from: 0, drawing: false, again: false, pointer: null, leaving: new AbortController(),

  async open(key) {
    this.close();
    this.place = null;
    this.leaving = new AbortController();
    const clip = await json("/api/clip", { key }, this.leaving.signal);
    this.clip = state.clip = clip;
    const asked = Math.trunc(Number(new URLSearchParams(location.hash.slice(1)).get("frame") ?? 0)) || 0;
    this.frame = Math.max(0, Math.min(asked, clip.frames - 1));
    // With others beside it a column is a row: the prediction, the truth, the error.
    const { others, columns: names } = state.about, place = (column) => names.indexOf(column.name) < 0 ? names.length : names.indexOf(column.name);
    if (others.length) clip.columns.sort((a, b) => place(a) - place(b));
    $("panes").style.setProperty("--across", others.length ? others.length + 1 : "auto-fill");
    $("panes").style.setProperty("--least", others.length ? "0px" : "380px");
    this.panes = clip.columns.map((column) => new Pane(clip, column));
    // Each dataset stays in its place, also in a row that another has nothing for.
    const rows = [...new Set(clip.columns.map((column) => column.name))];
    if (others.length) for (const { root, column } of this.panes) root.style.gridArea = `${rows.indexOf(column.name) + 1} / ${others.indexOf(column.source) + 2}`;
    $("panes").replaceChildren(...this.panes.map((pane) => pane.root));
    $("key").textContent = clip.key;
    $("caption").textContent = clip.caption || "(no caption)";
    $("reason").value = clip.flag;
    $("reason").disabled = false;
    showCamera([]);
    $("time").max = clip.frames - 1;
    $("record").replaceChildren(...[["size", `${clip.frames} × ${clip.height} × ${clip.width} at ${rounded(clip.fps)} fps`], ...Object.entries(clip.record)].filter(([, value]) => value !== "").map(([name, value]) => {
      const row = element("div");
      row.append(element("dt", name), element("dd", rounded(value)));
      return row;
    }));
    showScores(clip.scores);
    const present = this.panes.filter((pane) => pane.column.present);
    options($("over"), ["", ...present.map((_, at) => String(at))], (at) => (at === "" ? "nothing" : present[at].name));
    this.load(present, this.frame, this.leaving.signal);
    $("tracks").replaceChildren();
    this.hiddenTracks = new Set();
    for (const { column, place: from } of present) {
      if (column.name !== "skeleton" || column.source.startsWith("error")) continue;
      json("/api/people", from, this.leaving.signal).then((people) => { this.people.set(column.source, people); this.nameTracks(); this.changed(); }, report);
    }
    await this.neighbours(key);
    this.changed();
  },

  // First the frame asked for of every pane; then the rest from there on, a run of all panes at a time, a few at once.
  async load(panes, first, signal) {
    const runs = Math.ceil(this.clip.frames / RUN), waiting = [];
    // An error takes both clips whole: it comes after what it compares, and is blank until then.
    await Promise.all(panes.filter((pane) => !pane.column.source.startsWith("error")).map((pane) => pane.loadFrame(first, signal)));
    await this.draw().catch(report); // nothing else is decoded before they are seen
    if (signal.aborted) return;
    for (const pane of panes) pane.loadLegend(signal).catch((error) => pane.failed(error));
    for (const pane of panes) pane.loadFrame(first, signal);
    json("/api/camera", panes[0]?.place ?? {}, signal).then(({ path }) => showCamera(path), report);
    for (let at = 0; at < runs; at += 1) {
      const run = ((Math.floor(first / RUN) + at) % runs) * RUN;
      for (const pane of panes) waiting.push(() => pane.loadRun(run, signal));
    }
    const lane = async () => { while (waiting.length && !signal.aborted) await waiting.shift()(); };
    await Promise.all([lane(), lane(), lane()]);
  },

  async neighbours(key) {
    const around = await json("/api/neighbours", { query: encodedQuery(), key }, this.leaving.signal);
    this.place = around.place;
    $("place").textContent = around.place === null ? "" : `${around.place + 1} of ${around.total.toLocaleString("en")}`;
    for (const id of ["before", "after"]) {
      $(id).disabled = !around[id];
      $(id).onclick = () => { location.hash = `clip=${encodeURIComponent(around[id])}`; };
    }
  },

  close() {
    this.leaving.abort();
    this.panes = [];
    forgetOld();
    this.clip = state.clip = null;
    this.people.clear();
    this.stop();
    // What would act on the clip before waits for the next one.
    for (const id of ["before", "after", "reason"]) $(id).disabled = true;
  },

  show(frame) {
    if (!this.clip) return;
    this.frame = Math.max(0, Math.min(this.clip.frames - 1, frame));
    this.from = this.frame;
    this.started = performance.now();
    this.changed();
    this.hurry();
  },

  // The frame that is looked at goes before the runs that were asked for; one at a time, however fast one seeks.
  async hurry() {
    const { clip, frame, leaving: { signal } } = this, missing = this.panes.filter((pane) => pane.column.present && !pane.jpegs[frame]);
    if (this.hurrying === clip || !missing.length) return;
    this.hurrying = clip;
    await Promise.all(missing.map((pane) => pane.loadFrame(frame, signal)));
    if (this.hurrying === clip) this.hurrying = null;
    if (clip === this.clip && frame !== this.frame && !this.playing) this.hurry();
  },

  play() {
    if (!this.clip) return;
    this.playing = true;
    if (this.frame === this.clip.frames - 1) this.frame = 0;
    this.show(this.frame);
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "Stop");
    const tick = (now) => {
      if (!this.playing) return;
      const on = Math.floor(((now - this.started) / 1000) * this.clip.fps * Number($("speed").value));
      let frame = this.from + Math.max(0, on);
      if (frame >= this.clip.frames && !$("loop").checked) { this.frame = this.clip.frames - 1; this.changed(); this.stop(); return; }
      frame %= this.clip.frames;
      // Every pane has the frame, or all wait for it: the clock stands still meanwhile.
      if (this.panes.some((pane) => pane.column.present && !pane.jpegs[frame])) { this.from = this.frame; this.started = now; }
      else if (frame !== this.frame) { this.frame = frame; this.changed(); }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  },

  stop() {
    this.playing = false;
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "Play");
    this.changed(); // the read-out stood still meanwhile
  },

  changed() {
    if (this.drawing) { this.again = true; return; }
    this.drawing = true;
    this.draw().catch(report).finally(() => { this.drawing = false; if (this.again) { this.again = false; this.changed(); } });
  },

  // All panes are decoded first and then drawn in one go.
  async draw() {
    const { clip, frame } = this;
    if (!clip) return;
    const present = this.panes.filter((pane) => pane.column.present);
    const pictures = await Promise.all(present.map((pane) => pane.bitmap(frame)));
    if (clip !== this.clip || !pictures.some(Boolean)) return;
    // All show one frame: while one lacks it, none leaves the frame before. A pane that shows none yet keeps nobody.
    const shown = (pane) => pane.picture.dataset.frame;
    if (present.some((pane, at) => !pictures[at] && shown(pane) !== undefined && shown(pane) !== String(frame))) return;
    const over = $("over").value === "" ? null : pictures[Number($("over").value)];
    if (!$("arrows").checked) $("arrow-scale").textContent = "";
    present.forEach((pane, at) => {
      if (!pictures[at]) return;
      const pen = pane.picture.getContext("2d");
      pen.globalAlpha = 1;
      pen.drawImage(pictures[at], 0, 0, clip.width, clip.height);
      if (over && over !== pictures[at]) this.lay(pen, over);
      pane.picture.dataset.frame = frame;
      this.drawPeople(pane);
      if ($("arrows").checked && !this.playing) pane.loadArrows(frame, this.leaving.signal).catch(report);
      if ($("arrows").checked) this.drawArrows(pane);
    });
    drawCamera(frame);
    if (frame === this.frame) $("time").value = frame; // else it is being dragged on
    $("time").setAttribute("aria-valuetext", clip.moments[frame] ?? `frame ${frame} of ${clip.frames}`);
    $("at").textContent = `frame ${frame} of ${clip.frames}, ${clip.moments[frame] ?? `${(frame / clip.fps).toFixed(3)} s`}`;
    if (this.pointer && !this.playing) this.read();
  },

  lay(pen, over) {
    const { width, height } = this.clip, share = Number($("amount").value) / 100;
    if ($("mode").value === "blend") { pen.globalAlpha = share; pen.drawImage(over, 0, 0, width, height); return; }
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, width * share, height);
    pen.clip();
    pen.drawImage(over, 0, 0, width, height);
    pen.restore();
  },

  // Whom one can leave out, where there are several.
  nameTracks() {
    const tracks = [...new Set([...this.people.values()].flatMap((people) => people.tracks))].sort((a, b) => a - b);
    $("tracks").replaceChildren(...(tracks.length < 2 ? [] : tracks).map((track) => {
      const label = element("label", "", "check"), input = element("input");
      input.type = "checkbox";
      input.checked = !this.hiddenTracks.has(track);
      input.onchange = () => { if (input.checked) this.hiddenTracks.delete(track); else this.hiddenTracks.add(track); this.changed(); };
      label.append(input, `track ${track}`);
      return label;
    }));
  },

  drawPeople(pane) {
    // Lines at the screen's own pixels, not at the clip's.
    const canvas = pane.lines, ratio = devicePixelRatio || 1, across = pane.picture.clientWidth, scale = across / this.clip.width;
    canvas.width = across * ratio;
    canvas.height = this.clip.height * scale * ratio;
    const people = this.people.get(pane.column.source);
    if (!people || !$("vectors").checked || pane.column.name !== "rgb") return;
    const pen = canvas.getContext("2d"), { limbs, tracks } = people;
    pen.scale(ratio * scale, ratio * scale);
    pen.font = `${12 / scale}px system-ui`;
    people.joints[this.frame].forEach((joints, person) => {
      if (this.hiddenTracks.has(tracks[person])) return;
      const box = people.boxes[this.frame][person];
      pen.strokeStyle = pen.fillStyle = TRACKS[tracks[person] % TRACKS.length];
      pen.lineWidth = 1.5 / scale;
      if (box[0] !== null) {
        pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
        pen.fillText(String(tracks[person]), box[0] + 3 / scale, box[1] + 13 / scale);
      }
      pen.lineWidth = 2.5 / scale;
      for (const [a, b] of limbs) {
        if (joints[3 * a] === null || joints[3 * b] === null) continue;
        pen.globalAlpha = 0.35 + 0.65 * Math.min(joints[3 * a + 2], joints[3 * b + 2]);
        pen.beginPath();
        pen.moveTo(joints[3 * a], joints[3 * a + 1]);
        pen.lineTo(joints[3 * b], joints[3 * b + 1]);
        pen.stroke();
      }
      pen.globalAlpha = 1;
    });
  },

  drawArrows(pane) {
    if (pane.arrows?.frame !== this.frame) return;
    const canvas = pane.lines, pen = canvas.getContext("2d"), { rows, scale } = pane.arrows, unit = this.clip.width / pane.picture.clientWidth;
    pen.setTransform(canvas.width / this.clip.width, 0, 0, canvas.height / this.clip.height, 0, 0);
    for (const [width, colour] of [[3, "#000"], [1.3, "#fff"]]) { // white on black: seen on every hue
      pen.lineWidth = width * unit;
      pen.strokeStyle = colour;
      pen.beginPath();
      for (const [x, y, u, v] of rows) {
        const [toX, toY] = [x + u * scale, y + v * scale], turn = Math.atan2(v, u), head = Math.min(5 * unit, Math.hypot(u, v) * scale);
        pen.moveTo(x, y);
        pen.lineTo(toX, toY);
        if (head < unit) continue;
        for (const side of [2.6, -2.6]) { pen.moveTo(toX, toY); pen.lineTo(toX + head * Math.cos(turn + side), toY + head * Math.sin(turn + side)); }
      }
      pen.stroke();
    }
    $("arrow-scale").textContent = `arrows ${scale.toPrecision(3)} × as long as the motion`;
  },

  point(event, frame) {
    if (!event) { this.pointer = null; this.markPointer(); return; }
    const bounds = frame.getBoundingClientRect();
    this.pointer = {
      x: Math.max(0, Math.min(this.clip.width - 1, Math.floor(((event.clientX - bounds.left) / bounds.width) * this.clip.width))),
      y: Math.max(0, Math.min(this.clip.height - 1, Math.floor(((event.clientY - bounds.top) / bounds.height) * this.clip.height))),
    };
    this.read();
  },

  // The pointer by keyboard: from the middle on.
  nudge(right, down) {
    const { width, height } = this.clip, { x, y } = this.pointer ?? { x: width >> 1, y: height >> 1 };
    this.pointer = { x: Math.max(0, Math.min(width - 1, x + right)), y: Math.max(0, Math.min(height - 1, y + down)) };
    for (const pane of this.panes) if (pane.reading) pane.reading.setAttribute("aria-live", pane === this.panes[0] ? "polite" : "off");
    this.read();
  },

  // The same place in every pane.
  markPointer() {
    for (const { mark } of this.panes) {
      if (!mark) continue; // of an absent column
      mark.hidden = !this.pointer;
      if (!this.pointer) continue;
      mark.style.left = `${(100 * (this.pointer.x + 0.5)) / this.clip.width}%`;
      mark.style.top = `${(100 * (this.pointer.y + 0.5)) / this.clip.height}%`;
    }
  },

  // One question under way at a time; the last place of the pointer is asked next.
  async read() {
    this.markPointer();
    if (this.reading) { this.unread = true; return; }
    this.reading = true;
    const { pointer, frame } = this;
    await Promise.all(this.panes.filter((pane) => pane.column.present).map(async (pane) => {
      const found = await json("/api/readings", { ...pane.place, frame, ...pointer }, this.leaving.signal);
      pane.reading.textContent = found.length ? `(${pointer.x}, ${pointer.y})  ` + found.map(({ name, value, unit }) => `${name} ${rounded(value)}${unit ? ` ${unit}` : ""}`).join("  ") : "";
    })).catch(report);
    this.reading = false;
    const again = this.unread;
    this.unread = false;
    if (again && this.pointer && this.clip) this.read();
  },
};

// The camera seen from above: its way, where it is now, where it looks.
let cameraPath = [];
function showCamera(path) {
  cameraPath = path;
  $("camera").hidden = !path.length;
  drawCamera(player.frame);
}
function drawCamera(frame) {
  const here = cameraPath[Math.min(frame, cameraPath.length - 1)];
  if (!here) return;
  const canvas = $("camera").querySelector("canvas"), pen = canvas.getContext("2d"), size = canvas.width, style = getComputedStyle(canvas);
  const xs = cameraPath.map((one) => one[0]), zs = cameraPath.map((one) => one[2]);
  const middle = (all) => (Math.min(...all) + Math.max(...all)) / 2, across = (all) => Math.max(...all) - Math.min(...all);
  const span = Math.max(across(xs), across(zs), 1e-3), scale = (size - 40) / span;
  const place = ([x, , z]) => [size / 2 + (x - middle(xs)) * scale, size / 2 - (z - middle(zs)) * scale];
  pen.clearRect(0, 0, size, size);
  pen.strokeStyle = style.color;
  pen.lineWidth = 2;
  pen.beginPath();
  for (const one of cameraPath) pen.lineTo(...place(one));
  pen.stroke();
  const [x, y] = place(here), length = Math.hypot(here[3], here[4]) || 1;
  pen.strokeStyle = pen.fillStyle = style.accentColor;
  pen.beginPath();
  pen.arc(x, y, 5, 0, 7);
  pen.fill();
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + (here[3] / length) * 18, y - (here[4] / length) * 18);
  pen.stroke();
  $("camera").querySelector("figcaption").textContent = `${span > 1e-3 ? `camera from above, ${span.toPrecision(3)} m across; now at` : "the camera, from above, stands still at"} ${here.slice(0, 3).map((number) => number.toFixed(2)).join(", ")} m`;
}

async function flag() {
  const { key } = state.clip;
  const answer = await fetch("/api/flag", {
    method: "POST", headers: { "X-Token": token, "Content-Type": "application/json" },
    body: JSON.stringify({ key, reason: $("reason").value }),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  // Of this clip alone: the answer to an earlier flag may come later.
  if (key in said.flags) state.about.flags[key] = said.flags[key]; else delete state.about.flags[key];
  $("reason").blur();
}

// ---- Addresses, keys, beginning.

async function go() {
  $("error").hidden = true;
  const key = openedKey();
  $("grid-page").hidden = key !== null;
  $("clip-page").hidden = key === null;
  if (key !== null) {
    generation += 1; // answers for the grid are of no use now
    hovered.abort();
    // Thumbnails that nobody sees now would keep the clip's frames waiting; on the way back all cards are made anew.
    for (const image of document.querySelectorAll(".card img")) if (!image.complete) image.removeAttribute("src");
    await player.open(key);
    return;
  }
  const left = player.place;
  player.close();
  player.place = null;
  const query = new URLSearchParams(location.hash.slice(1)).get("q");
  if (query) { Object.assign(state.query, JSON.parse(query)); writeControls(); }
  await search();
  if (left !== null && left < state.total) bringBack(left);
}

// The card of the clip that was looked at: in sight, and where the keyboard goes on.
function bringBack(number) {
  const grid = $("grid"), seen = grid.clientHeight, step = CARD.height + CARD.gap, tall = Math.ceil(state.total / columns()) * step + CARD.gap;
  const top = (Math.floor(number / columns()) + 0.5) * step - seen / 2;
  grid.scrollTop = (top / Math.max(tall - seen, 1)) * ($("cards").clientHeight - seen); // as `layOut` reads it
  layOut();
  if (document.activeElement === document.body) cards.get(number)?.focus({ preventScroll: true });
}

// Arrow keys go from card to card, also to one that does not exist yet.
function moveAmongCards(event) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  const here = [...cards].find(([, card]) => card === document.activeElement)?.[0];
  if (here === undefined || !(event.key in moves)) return false;
  const next = here + moves[event.key];
  if (next < 0 || next >= state.total) return true;
  cards.get(next)?.scrollIntoView({ block: "nearest" });
  layOut();
  cards.get(next)?.focus();
  return true;
}

function typed(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range" && event.target.type !== "checkbox";
  if (event.key === "Escape") {
    if (typing) event.target.blur(); else if (!$("error").hidden) $("error").hidden = true; else if (state.clip && !$("help").open) $("home").click();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 10 : 1, moves = { ArrowLeft: () => player.frame - step, ArrowRight: () => player.frame + step, Home: () => 0, End: () => Infinity };
  const keys = { " ": () => $("play").click(), n: () => $("after").click(), p: () => $("before").click(), f: () => served && $("reason").focus(), v: () => $("vectors").click(), a: () => $("arrows").click() };
  const points = { i: [0, -step], j: [-step, 0], k: [0, step], l: [step, 0] };
  if (event.key === "?") $("help").showModal();
  else if (!state.clip && moveAmongCards(event)) { event.preventDefault(); return; }
  else if (state.clip && event.key.toLowerCase() in points) player.nudge(...points[event.key.toLowerCase()]);
  else if (event.key === "/" && !state.clip) $("words").focus();
  else if (state.clip && event.key in moves) { player.stop(); player.show(moves[event.key]()); }
  else if (state.clip && event.key in keys) keys[event.key]();
  else return;
  event.preventDefault();
}

async function begin() {
  // What is typed and chosen before the first answer counts, too.
  brushed();
  // Each control says only what it is itself, and at once: the others may not have been drawn yet.
  const control = (id, read) => { $(id).onchange = guarded(() => { Object.assign(state.query, read($(id))); return search(); }); };
  control("sort", (one) => ({ sort: one.value }));
  control("flagged", (one) => ({ flagged: one.checked }));
  control("absent", (one) => ({ absent: one.value ? JSON.parse(one.value) : null }));
  let waiting;
  $("words").oninput = () => {
    state.query.words = $("words").value;
    clearTimeout(waiting);
    waiting = setTimeout(guarded(search), 150);
  };
  $("order").onclick = guarded(() => { state.query.order = state.query.order === "ascending" ? "descending" : "ascending"; writeControls(); return search(); });
  $("field").onchange = guarded(() => drawHistogram());
  $("clear").onclick = guarded(() => {
    Object.assign(state.query, { words: "", choices: {}, ranges: {}, absent: null, flagged: false, sort: "key", order: "ascending" });
    writeControls();
    return search();
  });
  $("grid").onscroll = layOut;
  new ResizeObserver(layOut).observe($("grid"));
  $("home").onclick = (event) => { event.preventDefault(); location.hash = `q=${encodeURIComponent(encodedQuery())}`; };
  $("play").onclick = () => (player.playing ? player.stop() : player.play());
  $("time").oninput = () => { player.stop(); player.show(Number($("time").value)); };
  for (const id of ["over", "mode", "amount", "vectors", "arrows"]) $(id).oninput = () => player.changed();
  $("reason").onkeydown = (event) => { if (event.key === "Enter") guarded(flag)(); };
  $("help-button").onclick = () => $("help").showModal();
  $("error").onclick = () => { $("error").hidden = true; };
  addEventListener("keydown", typed);
  addEventListener("resize", () => player.changed());
  state.about = await json("/api/about", {});
  const { sort, order } = state.about.begin;
  Object.assign(state.query, { sort, order });
  $("flag").hidden = !served;
  showComparison();
  $("dataset").textContent = [state.about.url, ...state.about.others].join("  |  ");
  document.title = `${state.about.url} – OpenUni`;
  addEventListener("hashchange", guarded(go));
  // The first clips are there before the whole index is: filters come when it has been read. A clip's neighbours, and
  // the query of a link, need it at once.
  const shown = guarded(go)();
  if (JSON.stringify(state.query) === EVERYTHING && $("clip-page").hidden) await shown;
  watchIndex();
  state.facets = await json("/api/facets", {});
  showFilters();
  writeControls();
  if (!state.clip) await drawHistogram();
  await shown;
}

// Two runs: each score of both, and by how much the second differs.
function showComparison() {
  const { compared, runs, remarks } = state.about;
  $("comparison").hidden = !compared.length && !remarks.length;
  $("comparison").querySelector("table").hidden = !compared.length;
  $("remarks").replaceChildren(...remarks.map((remark) => element("p", remark)));
  ["first-run", "second-run"].forEach((id, at) => { if (runs[at]) $(id).textContent = runs[at]; });
  $("compared").replaceChildren(...compared.map((one) => {
    const row = element("tr"), name = element("td"), sort = element("button", one.name);
    sort.type = "button";
    sort.disabled = true; // until the index is read
    sort.onclick = guarded(() => {
      const wanted = state.facets.numbers.find((number) => number.startsWith(`${one.name}: `));
      if (!wanted) return undefined;
      Object.assign(state.query, { sort: wanted, order: "descending" });
      writeControls();
      return search();
    });
    name.append(sort);
    const unit = one.unit && ` ${one.unit}`;
    row.append(name, ...[one.a, one.b].map((value) => element("td", value.toPrecision(4) + unit)), element("td", signed(one.b - one.a, 3) + unit), element("td", `${signed(one.low, 3)} … ${signed(one.high, 3)}`), element("td", one.better));
    return row;
  }));
}

// What a clip got from the runs that are looked at; of two, also by how much the second differs.
function showScores(scores) {
  const { runs } = state.about, names = Object.keys(scores), two = runs.length === 2;
  $("scored").hidden = !names.length;
  const cells = (kind, texts) => {
    const row = element("tr");
    row.append(...texts.map((text) => element(kind, text)));
    return row;
  };
  $("scores").replaceChildren(cells("th", ["score", ...runs, ...(two ? ["difference"] : [])]), ...names.map((name) => {
    const values = scores[name], known = values.every((value) => value !== null), apart = two && known ? signed(values[1] - values[0], 4) : "";
    return cells("td", [name, ...values.map((value) => (value === null ? "–" : rounded(value))), ...(two ? [apart] : [])]);
  }));
}

// Says how much of a large index has been read.
async function watchIndex() {
  while (!state.facets) {
    await new Promise((wait) => { setTimeout(wait, 500); });
    if (state.facets) break;
    const { read, clips } = await json("/api/progress", {}).catch(() => ({ read: 0, clips: 0 }));
    $("reading").textContent = read < clips ? `reading the index: ${Math.floor((100 * read) / clips)} %; filters wait for it` : "";
  }
  $("reading").textContent = "";
}
guarded(begin)();
