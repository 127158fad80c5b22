// All jobs, newest first: live, filtered by the service, drawn only where they are seen.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { follow, pages, post } from "./api.js";
import { DASH, ago, bytes, duration, isFinal, nameOf, percent, share, sizeOf, words } from "./format.js";
import { Act, Failure, Heading, Loading, Progress, State, Sure, announce, doing, left } from "./ui.js";
import { useWindowed } from "./windowed.js";

const MOST = 20000;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
const METHODS = ["atmc", "nap", "da", "ap", "al0", "alr", "evaluate"];

const fits = (job, { state, method, q }) =>
  (!state || job.state === state) && (!method || job.spec.method === method) &&
  (!q || `${job.name || ""}\n${job.id}`.toLowerCase().includes(q.toLowerCase()));

/** The list as the filter has it: `rows` newest first, kept so while jobs change and come. */
function useJobs(filter) {
  const [shown, show] = useState({ rows: [], loading: true, problem: null });
  const [again, load] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const byId = new Map();
    let loading = true, problem = null, due = null;
    // Many changes at once are drawn once.
    const draw = () => {
      due ??= setTimeout(() => {
        due = null;
        if (signal.aborted) return;
        const rows = [...byId.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
        show({ rows, loading, problem });
      }, byId.size > 100 ? 80 : 0);
    };
    const query = Object.entries(filter).filter(([, value]) => value).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    show({ rows: [], loading: true, problem: null });
    pages(`jobs?${query.join("&")}`, (page) => {
      for (const job of page.data) if (!byId.has(job.id)) byId.set(job.id, job);
      loading = Boolean(page.next) && byId.size < MOST;
      draw();
      return loading;
    }, { signal }).catch((failure) => { if (!signal.aborted) { problem = failure; loading = false; draw(); } });
    follow("jobs", {
      signal,
      onEvent: (job) => {
        const before = byId.get(job.id);
        if (before && before.state !== job.state && isFinal(job)) announce(`${nameOf(job)}: ${job.state}`);
        if (fits(job, filter)) byId.set(job.id, job);
        else if (before) byId.delete(job.id);
        draw();
      },
    });
    return () => { stop.abort(); clearTimeout(due); };
  }, [filter.state, filter.method, filter.q, again]);
  return [shown, () => load(again + 1)];
}

export function Jobs() {
  const [filter, choose] = useState(() => JSON.parse(sessionStorage.getItem("atmc-filter") || "{}"));
  const [{ rows, loading, problem }, reload] = useJobs(filter);
  const [picked, pick] = useState([]);
  // By what it is then: a search waits for its last letter, and the rest may change meanwhile.
  const change = (part) => choose((before) => ({ ...before, ...part }));
  useEffect(() => sessionStorage.setItem("atmc-filter", JSON.stringify(filter)), [filter]);
  const toggle = (id) => pick((ids) => (ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id].slice(-2)));
  const filtered = filter.state || filter.method || filter.q;
  return html`<section class="jobs">
    <div class="head"><${Heading} title="Jobs" />
      <p class="count" role="status">${loading && !rows.length ? "" : `${rows.length.toLocaleString("en")}${loading ? " and more" : ""}`}</p></div>
    <${Filters} filter=${filter} onChange=${change} />
    ${problem && html`<${Failure} problem=${problem} again=${reload} />`}
    ${rows.length ? html`<${Table} rows=${rows} picked=${picked} onPick=${toggle} />`
      : loading ? html`<${Loading} />`
      : !problem && (filtered ? html`<p class="empty">No job fits. <button type="button" class="link" onClick=${() => change({ state: "", method: "", q: "" })}>Show all</button></p>` : html`<${Nothing} />`)}
    ${picked.length > 0 && html`<div class="tray" role="region" aria-label="Comparison">
      <span>${picked.length === 1 ? "One job chosen: choose another to compare" : "Two jobs chosen"}</span>
      <button type="button" class="quiet" onClick=${() => pick([])}>Clear</button>
      ${picked.length === 2 && html`<a class="button first" href="#/compare/${picked.join("/")}">Compare</a>`}
    </div>`}
  </section>`;
}

const Nothing = () => html`<div class="empty big">
  <p>No job yet. Send a network and its data, say how small it has to be and what it has to withstand.</p>
  <p><a class="button first" href="#/new">New job</a></p></div>`;

function Filters({ filter, onChange }) {
  const [text, type] = useState(filter.q || "");
  const timer = useRef();
  const search = (event) => {
    const q = event.target.value;
    type(q);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange({ q: q.trim() }), 250);
  };
  useEffect(() => { if (!filter.q) type(""); }, [filter.q]);
  const option = (name) => html`<option value=${name} key=${name}>${name}</option>`;
  return html`<div class="filters" role="search">
    <input type="search" aria-label="Search by name or id" placeholder="Search by name or id" value=${text} onInput=${search} />
    <select aria-label="State" value=${filter.state || ""} onChange=${(e) => onChange({ state: e.target.value })}>
      <option value="">Every state</option>${STATES.map(option)}</select>
    <select aria-label="Method" value=${filter.method || ""} onChange=${(e) => onChange({ method: e.target.value })}>
      <option value="">Every method</option>${METHODS.map(option)}</select>
  </div>`;
}

const COLUMNS = ["", "Job", "Progress", "Method", "Density", "Bits", "Clean", "Robust", "File", ""];
const NAMES = { 0: "Compare", 9: "Actions" };

function Table({ rows, picked, onPick }) {
  const { ref, start, end, height, rowHeight } = useWindowed(rows.length);
  const step = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = event.target.closest?.("[data-row]");
    if (!by || !at || event.target.matches("input, select")) return;
    const next = ref.current.querySelector(`[data-row="${Number(at.dataset.row) + by}"] a`);
    if (next) { event.preventDefault(); next.focus(); }
  };
  return html`<div class="table" role="table" aria-label="Jobs" aria-rowcount=${rows.length + 1} onKeyDown=${step}>
    <div role="rowgroup" class="titles"><div role="row" aria-rowindex="1" class="row">
      ${COLUMNS.map((text, n) => html`<span role="columnheader" key=${n} class=${n > 3 && n < 9 ? "number" : ""}>${text || html`<span class="unseen">${NAMES[n]}</span>`}</span>`)}
    </div></div>
    <div role="rowgroup" class="body" ref=${ref} style=${{ height: `${height}px` }}>
      ${rows.slice(start, end).map((job, n) => html`<${Row} key=${job.id} job=${job} at=${start + n} top=${(start + n) * rowHeight}
        isPicked=${picked.includes(job.id)} onPick=${onPick} />`)}
    </div>
  </div>`;
}

function Row({ job, at, top, isPicked, onPick }) {
  const name = nameOf(job);
  const found = job.headline || {};
  const after = (of) => found[`${of}_after`] ?? found[`${of}_before`];
  return useMemo(() => html`<div role="row" class="row" aria-rowindex=${at + 2} data-row=${at} style=${{ transform: `translateY(${top}px)` }}>
    <span role="cell" class="pick"><input type="checkbox" aria-label="Compare ${name}" checked=${isPicked} onChange=${() => onPick(job.id)} /></span>
    <span role="cell" class="name"><a href="#/jobs/${job.id}">${name}</a><span class="sub"><${State} of=${job.state} /> <span class="when">${ago(job.created_at)}</span></span></span>
    <span role="cell" class="doing">${isFinal(job) ? html`<${Ended} job=${job} />`
      : html`<${Progress} job=${job} label="progress of ${name}" /><span class="sub">${doing(job)}<span class="left">${left(job)}</span></span>`}</span>
    <span role="cell" class="method">${words(job.spec.method)}</span>
    <span role="cell" class="number density">${sizeOf(job.spec)}</span>
    <span role="cell" class="number bits">${job.spec.target?.bits ?? DASH}</span>
    <span role="cell" class="number clean">${percent(after("clean_accuracy"))}</span>
    <span role="cell" class="number robust">${percent(after("robust_accuracy"))}</span>
    <span role="cell" class="number file" title=${bytes(found.file_bytes)}>${share(found.file_ratio)}</span>
    <span role="cell" class="acts"><${RowActs} job=${job} name=${name} /></span>
  </div>`, [job, at, top, isPicked]);
}

const Ended = ({ job }) => job.state === "failed"
  ? html`<span class="sub bad" title=${job.error?.message}>${words(job.error?.code)}</span>`
  : html`<span class="sub">${job.state === "succeeded" ? `took ${duration(job.headline?.seconds)}${job.headline?.accepted === false ? ", misses a threshold" : ""}` : "cancelled"}</span>`;

export function RowActs({ job, name, class: kind = "quiet small" }) {
  const act = (verb) => async () => {
    try {
      await post(`jobs/${job.id}/${verb}`);
    } catch (problem) {
      announce(problem.message, true);
    }
  };
  if (!isFinal(job)) {
    return html`<${Sure} class=${kind} label="Cancel ${name}" question="Cancel it?" onSure=${act("cancel")}>Cancel<//>`;
  }
  return job.state === "succeeded" ? null : html`<${Act} class=${kind} label="Retry ${name}" onAct=${act("retry")}>Retry<//>`;
}
