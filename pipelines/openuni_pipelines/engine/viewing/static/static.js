"use strict";
// The answers of `openuni view` from the files of an export: the page asks as it asks the server.

const offline = (() => {
  const kept = new Map();
  const fetched = (path) => {
    if (!kept.has(path)) {
      if (kept.size > 64) kept.delete(kept.keys().next().value);
      const found = fetch(path).then((answer) => {
        if (!answer.ok) throw new Error(`${path} is missing from this export`);
        return answer.arrayBuffer();
      });
      kept.set(path, found);
      found.catch(() => { if (kept.get(path) === found) kept.delete(path); }); // asked again, it may come
    }
    return kept.get(path);
  };
  const read = async (path) => JSON.parse(new TextDecoder().decode(await fetched(path)));
  const folder = (key) => `data/${encodeURIComponent(key)}`;
  const about = () => read("data/about.json");

  async function find(text) {
    const query = JSON.parse(text), rows = await read("data/clips.json");
    const words = query.words.toLowerCase().split(/\s+/).filter(Boolean), { flags } = (await about()).about;
    const fits = (row) => words.every((word) => row.key.toLowerCase().includes(word) || row.caption.toLowerCase().includes(word))
      && Object.entries(query.choices).every(([field, allowed]) => allowed.includes(row.choices[field] ?? ""))
      && Object.entries(query.ranges).every(([field, [low, high]]) => typeof row.numbers[field] === "number" && row.numbers[field] >= low && row.numbers[field] <= high)
      && (!query.absent || (row.absent.includes(query.absent[0]) && (!query.absent[1] || row.reasons[query.absent[0]] === query.absent[1])))
      && (!query.flagged || row.key in flags);
    const found = rows.filter(fits), sign = query.order === "descending" ? -1 : 1;
    if (query.sort === "key") { if (sign < 0) found.reverse(); return found; }
    const value = (row) => row.numbers[query.sort] ?? null;
    return found.sort((a, b) => (value(a) === null) - (value(b) === null) || sign * (value(a) - value(b))).map((row) => ({ ...row, value: value(row) }));
  }

  async function histogram({ query, field }) {
    const numbers = (rows) => rows.map((row) => row.numbers[field]).filter((number) => typeof number === "number");
    const all = numbers(await read("data/clips.json")), found = await find(query), known = numbers(found);
    const low = Math.min(...all), high = Math.max(...all), width = (high - low) / 32 || 1, counts = new Array(32).fill(0);
    for (const number of known) counts[Math.min(31, Math.floor((number - low) / width))] += 1;
    return { field, edges: Array.from({ length: 33 }, (_, at) => low + at * width), counts, missing: found.length - known.length };
  }

  async function stem({ key, column, source }) {
    const { others } = (await about()).about;
    return `${folder(key)}/${source ? others.indexOf(source) + 1 : 0}.${column}`;
  }

  function split(data) {
    const view = new DataView(data), found = [];
    for (let at = 0; at < data.byteLength; at += 4 + view.getUint32(at, true)) found.push(data.slice(at + 4, at + 4 + view.getUint32(at, true)));
    return found;
  }

  async function pictures(place, first, count) {
    const start = Math.floor(first / 16) * 16, found = [];
    const { clip } = await read(`${folder(place.key)}/clip.json`);
    for (let run = start; run < Math.min(first + count, clip.frames); run += 16) found.push(...split(await fetched(`${await stem(place)}.${run}.jpegs`)));
    return found.slice(first - start, first - start + count);
  }

  // A npy of NumPy's, unpacked: its numbers, and how many belong to a pixel.
  async function npy(path) {
    const stream = new Blob([await fetched(path)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const data = await new Response(stream).arrayBuffer(), size = new DataView(data).getUint16(8, true);
    const header = new TextDecoder().decode(new Uint8Array(data, 10, size));
    const kind = { "<f4": Float32Array, "|u1": Uint8Array, "<i4": Int32Array }[/'descr': '([^']+)'/.exec(header)[1]];
    const [, width, channels] = /'shape': \(([^)]+)\)/.exec(header)[1].split(",").map(Number);
    return { numbers: new kind(data.slice(10 + size)), width, channels };
  }

  async function readings({ key, column, source, frame, x, y }) {
    const { reads } = await read(`${folder(key)}/clip.json`), path = await stem({ key, column, source });
    const channels = reads[path.slice(path.lastIndexOf("/") + 1)] ?? [];
    if (column === "skeleton" && !source.startsWith("error")) return nearestJoint((await read(`${folder(key)}/clip.json`)).people[source], frame, Number(x) + 0.5, Number(y) + 0.5);
    if (!channels.length) return [];
    const values = await npy(`${path}.${frame}.values`), at = (Number(y) * values.width + Number(x)) * values.channels;
    return channels.map(({ name, at: channel, unit, scale, labels }) => {
      const value = values.numbers[at + channel];
      return { name, unit, value: Number.isNaN(value) ? null : Object.keys(labels).length ? labels[value] ?? "unknown" : scale === 1 ? value : value * scale };
    });
  }

  function nearestJoint(people, frame, x, y) {
    let nearest = null;
    people.joints[frame].forEach((joints, person) => people.names.forEach((joint, at) => {
      const [jointX, jointY, score] = joints.slice(3 * at, 3 * at + 3), away = jointX === null ? Infinity : Math.hypot(jointX - x, jointY - y);
      if (away < (nearest?.away ?? Infinity)) nearest = { person: people.tracks[person], joint, away, score };
    }));
    if (!nearest) return [{ name: "joint", value: "nobody in this frame", unit: "" }];
    return [["person", nearest.person, ""], ["joint", nearest.joint, ""], ["at", nearest.away, "px away"], ["score", nearest.score, ""]].map(([name, value, unit]) => ({ name, value, unit }));
  }

  const answers = {
    "/api/about": async () => (await about()).about,
    "/api/facets": async () => (await about()).facets,
    "/api/progress": async () => ({ read: 1, clips: 1 }),
    "/api/cards": async ({ query, first, count }) => { const found = await find(query); return { total: found.length, first, cards: found.slice(first, first + count) }; },
    "/api/histogram": histogram,
    "/api/neighbours": async ({ query, key }) => {
      const keys = (await find(query)).map((row) => row.key), place = keys.indexOf(key);
      return { place: place < 0 ? null : place, total: keys.length, before: keys[place - 1] ?? null, after: place < 0 ? null : keys[place + 1] ?? null };
    },
    "/api/clip": async ({ key }) => (await read(`${folder(key)}/clip.json`)).clip,
    "/api/people": async ({ key, source }) => (await read(`${folder(key)}/clip.json`)).people[source],
    "/api/readings": readings,
    "/api/legend": async (place) => { const path = await stem(place); return { text: (await read(`${folder(place.key)}/clip.json`)).legends[path.slice(path.lastIndexOf("/") + 1)] ?? "" }; },
    "/api/camera": async ({ key }) => ({ path: key ? (await read(`${folder(key)}/clip.json`)).camera : [] }),
    "/api/arrows": async (place) => {
      const values = await npy(`${await stem(place)}.${place.frame}.values`), { width, channels, numbers } = values, height = numbers.length / width / channels;
      const step = Math.max(Math.floor(Math.max(width, height) / 32), 4), rows = [];
      for (let y = step >> 1; y < height; y += step) {
        for (let x = step >> 1; x < width; x += step) {
          const at = (y * width + x) * channels;
          if (!Number.isNaN(numbers[at])) rows.push([x + 0.5, y + 0.5, numbers[at], numbers[at + 1]]);
        }
      }
      const fastest = Math.max(...rows.map(([, , u, v]) => Math.hypot(u, v)), width / 400);
      return { step, scale: (1.5 * step) / fastest, rows };
    },
  };

  return {
    thumbnail: (key) => `${folder(key)}/thumbnail.jpg`,
    async ask(path, values) {
      if (path === "/api/frame") return new Response((await pictures(values, values.frame, 1))[0], { headers: { "Content-Type": "image/jpeg" } });
      if (path === "/api/frames") {
        const found = await pictures(values, values.first, values.count);
        return new Response(new Blob(found.flatMap((one) => [new Uint32Array([one.byteLength]), one])));
      }
      return new Response(JSON.stringify(await answers[path](values)));
    },
  };
})();
