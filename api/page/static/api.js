// The service's calls: keys, problem documents, streams, uploads in pieces, downloads.

const KEY = "atmc-key";
const base = new URL("./", document.baseURI);

export class Problem extends Error {
  constructor(status, document = {}) {
    super(document.detail || document.title || `The service answered ${status}.`);
    Object.assign(this, { status, code: document.code, param: document.param });
  }
}

// Kept as long as the tab is open, and shown to nobody but this service.
export const session = {
  get key() { return sessionStorage.getItem(KEY); },
  set key(key) { key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY); },
  onDenied: () => {},
};

export const address = (path) => new URL(path.replace(/^\//, ""), base);

async function send(path, { headers = {}, ...options } = {}) {
  const shown = session.key ? { Authorization: `Bearer ${session.key}` } : {};
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers: { ...headers, ...shown } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service does not answer. It is tried again." });
  }
  if (answer.ok) return answer;
  const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
  problem.retryAfter = Number(answer.headers.get("Retry-After")) || null;
  if (answer.status === 401) session.onDenied(problem);
  throw problem;
}

const pause = (ms, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });

/** Send what can be sent twice; one that is refused for the moment is sent again. */
async function patiently(path, options) {
  for (let again = 0; ; again++) {
    try {
      return await send(path, options);
    } catch (problem) {
      if (again === 4 || ![503, 429].includes(problem.status)) throw problem;
      await pause(1000 * Math.min(problem.retryAfter || 1, 10), options.signal);
    }
  }
}

/** GET a document, or a text. */
export async function get(path, { signal, accept = "application/json" } = {}) {
  const answer = await patiently(path, { signal, headers: { Accept: accept } });
  return accept === "application/json" ? answer.json() : answer.text();
}

/** POST a document under a key of its own, so that sending it twice does it once. */
export async function post(path, body, { onceKey = newOnceKey() } = {}) {
  const headers = { "Idempotency-Key": onceKey };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await patiently(path, { method: "POST", headers, body: body && JSON.stringify(body) });
  return answer.json();
}

export const newOnceKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");

export const remove = (path) => patiently(path, { method: "DELETE" });

/** All of a list, page by page; `onPage` may return false to end it. */
export async function pages(path, onPage, { signal, limit = 100 } = {}) {
  for (let cursor = null; ; ) {
    const url = address(path);
    url.searchParams.set("limit", cursor ? limit : Math.min(limit, 50));
    if (cursor) url.searchParams.set("cursor", cursor);
    const page = await get(url.href.slice(base.href.length), { signal });
    if (signal?.aborted || onPage(page) === false || !page.next) return;
    cursor = page.next;
  }
}

/**
 * Follow a stream of server-sent events until it has ended for good or `signal` says so. EventSource
 * sends no Authorization, so it is read here: it connects again after the last id that came.
 */
export async function follow(path, { signal, onEvent, onState = () => {}, after = null }) {
  let last = after, failures = 0;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (last !== null) headers["Last-Event-ID"] = last;
      const answer = await send(path, { headers, signal, cache: "no-store" });
      if (answer.status === 204) return;
      onState("live");
      for await (const event of events(answer.body)) {
        failures = 0;
        if (event.id !== null) last = event.id;
        if (event.data) onEvent(JSON.parse(event.data));
      }
    } catch (problem) {
      if (signal.aborted || [401, 403, 404].includes(problem.status)) return;
    }
    if (signal.aborted) return;
    onState("waiting");
    await pause(Math.min(1000 * 2 ** failures++, 15000), signal);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", id = null, data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length || id !== null) yield { id, data: data.join("\n") };
        id = null; data = [];
      } else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line.startsWith("id:")) id = line.slice(3).trim();
    }
  }
}

const PIECE = 4 * 1024 * 1024;

/** Send a file by tus, in pieces; after a failure it goes on where the service says. */
export async function upload(file, { onProgress = () => {}, signal } = {}) {
  const tus = { "Tus-Resumable": "1.0.0" };
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name.slice(0, 200))));
  const begun = await patiently("uploads", {
    method: "POST", signal,
    headers: { ...tus, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` },
  });
  const path = begun.headers.get("Location");
  let at = 0, failures = 0;
  onProgress(0);
  while (at < file.size) {
    try {
      const answer = await send(path, {
        method: "PATCH", signal, body: file.slice(at, at + PIECE),
        headers: { ...tus, "Upload-Offset": String(at), "Content-Type": "application/offset+octet-stream" },
      });
      at = Number(answer.headers.get("Upload-Offset"));
      failures = 0;
    } catch (problem) {
      if (signal?.aborted || ++failures > 8 || ![0, 409, 429, 503].includes(problem.status)) throw problem;
      await pause(Math.min(500 * 2 ** failures, 10000), signal);
      const known = await send(path, { method: "HEAD", headers: tus, signal }).catch(() => null);
      if (known) at = Number(known.headers.get("Upload-Offset"));
    }
    onProgress(at / file.size);
  }
  return path.split("/").pop();
}

/** Save a file that may need the key: it is fetched, and given to the browser as a download. */
export async function download(path, name) {
  const answer = await patiently(`${path}?redirect=false`, {});
  save(await answer.blob(), name);
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
