// Small parts that several views are made of.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { duration, percent, words } from "./format.js";

const GLYPHS = {
  queued: "◌", planned: "◌", validating: "◐", running: "◐", succeeded: "●", failed: "✕", cancelled: "⊘", skipped: "⊘",
};

export const State = ({ of }) =>
  html`<span class="state ${of}"><span class="glyph" aria-hidden="true">${GLYPHS[of]}</span>${of}</span>`;

export function Progress({ job, label = "progress" }) {
  const value = Math.round(1000 * (job.progress || 0)) / 10;
  return html`<span class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${value} aria-valuetext=${percent(job.progress || 0)}><span style=${{ width: `${value}%` }}></span></span>`;
}

/** What a job that goes on is at. */
export function doing(job) {
  if (job.cancel_requested_at) return "ending";
  if (job.state === "queued") {
    return job.waiting === "no_such_worker" ? "no worker could run it" : "waits for a worker";
  }
  const epochs = job.epochs && job.stage?.includes("training") ? ` ${job.epoch ?? 0}/${job.epochs}` : "";
  return (words(job.stage) || "starting") + epochs;
}

export const left = (job) => (job.eta_s == null ? "" : `${duration(job.eta_s)} left`);

/** A button that asks once more where what it does cannot be undone. */
export function Sure({ children, onSure, class: kind = "", label, question = "Really?" }) {
  const [asked, ask] = useState(false);
  const [busy, work] = useState(false);
  const act = async () => {
    if (!asked) return ask(true);
    ask(false); work(true);
    try { await onSure(); } finally { work(false); }
  };
  return html`<button type="button" class="${kind} ${asked ? "asked" : ""}" disabled=${busy} onClick=${act}
    onBlur=${() => ask(false)} aria-label=${asked ? `${question} ${label || ""}` : label}>${asked ? question : children}</button>`;
}

/** A button of what takes a moment; it says what went wrong beside itself. */
export function Act({ children, onAct, class: kind = "", label, disabled }) {
  const [busy, work] = useState(false);
  const act = async () => {
    work(true);
    try { await onAct(); } catch (problem) { announce(problem.message, true); } finally { work(false); }
  };
  return html`<button type="button" class=${kind} disabled=${busy || disabled} aria-busy=${busy} aria-label=${label} onClick=${act}>${children}</button>`;
}

export function Copy({ text, label = "Copy", children }) {
  const [done, tell] = useState(false);
  const copy = async () => {
    await toClipboard(text);
    tell(true);
    setTimeout(() => tell(false), 1500);
  };
  return html`<button type="button" class="quiet small" aria-label=${done ? "copied" : label} onClick=${copy}>${done ? "Copied" : children || "Copy"}</button>`;
}

async function toClipboard(text) {
  // Pages that came by plain HTTP have no clipboard of their own.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  return area.remove();
}

/** One of a few, as buttons in a row. */
export function Choice({ label, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`<button type="button" key=${key} aria-pressed=${key === value} onClick=${() => onChange(key)}>${text}</button>`)}
  </div>`;
}

export const Failure = ({ problem, again }) => html`<div class="notice bad" role="alert">
  <p>${problem.message}</p>${again && html`<button type="button" onClick=${again}>Try again</button>`}</div>`;

export const Loading = () => html`<p class="loading" role="status">Loading …</p>`;

let tell = () => {};
/** Say something to all readers: shown for a while, and read out. */
export const announce = (text, isBad = false) => tell({ text, isBad, at: Date.now() });

export function Announcer() {
  const [said, say] = useState({ text: "" });
  const timer = useRef();
  useEffect(() => {
    tell = (news) => {
      say(news);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => say({ text: "" }), news.isBad ? 9000 : 4000);
    };
  }, []);
  return html`<div class="announcer ${said.isBad ? "bad" : ""}" role="status" aria-live="polite" data-empty=${!said.text}>${said.text}</div>`;
}

/** The page's title, and the heading that the focus goes to when a view opens. */
export function Heading({ children, title, focus = true }) {
  const ref = useRef();
  useEffect(() => {
    document.title = `${title} · ATMC`;
    if (focus && document.body.dataset.moved) ref.current?.focus({ preventScroll: true });
  }, [title]);
  return html`<h1 tabindex="-1" ref=${ref}>${children || title}</h1>`;
}

/** The width of an element, for what is drawn into it. */
export function useWidth(fallback = 600) {
  const ref = useRef();
  const [width, set] = useState(fallback);
  useEffect(() => {
    if (!ref.current) return undefined;
    const seen = new ResizeObserver(([entry]) => set(Math.round(entry.contentRect.width)));
    seen.observe(ref.current);
    return () => seen.disconnect();
  }, []);
  return [ref, width];
}
