// How figures are written: one way for each kind, a dash for what is not known.

export const DASH = "–";
const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const known = (n) => typeof n === "number" && Number.isFinite(n);

export const count = (n) => (known(n) ? whole.format(n) : DASH);
export const percent = (n) => (known(n) ? `${one.format(100 * n)} %` : DASH);
export const points = (n) => (known(n) ? `${n < 0 ? "−" : "+"}${one.format(Math.abs(100 * n))}` : DASH);

/** Three digits that tell: .0285 as 2.85 %, 1/400 as .25 %. */
export function share(n) {
  if (!known(n)) return DASH;
  const percents = 100 * n;
  const digits = percents >= 10 ? 1 : percents >= 0.1 ? 2 : 3;
  return `${percents.toFixed(digits).replace(/\.?0+$/, "")} %`;
}

export function bytes(n) {
  if (!known(n)) return DASH;
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]]) {
    if (n >= size) return `${n / size < 10 ? (n / size).toFixed(2) : n / size < 100 ? (n / size).toFixed(1) : whole.format(n / size)} ${unit}`;
  }
  return `${n} B`;
}

export function duration(s) {
  if (!known(s)) return DASH;
  if (s < 1) return "< 1 s";
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 36 * 3600) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.round(s / 86400)} days`;
}

export function ago(time) {
  const s = (Date.now() - new Date(time)) / 1000;
  return s < 5 ? "just now" : `${duration(s)} ago`;
}

export const moment = (time) =>
  time ? new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }) : DASH;

export const words = (name) => (name || "").replaceAll("_", " ");

/** What a spec asks for in size, in one word. */
export function sizeOf(spec) {
  const target = spec?.target || {};
  if (known(target.density)) return share(target.density);
  if (known(target.k)) return `k ${count(target.k)}`;
  if (known(target.nominal_ratio)) return `${share(target.nominal_ratio)} nominal`;
  if (known(target.max_bytes)) return `≤ ${bytes(target.max_bytes)}`;
  if (known(target.macs)) return `${share(target.macs)} of MACs`;
  return DASH;
}

export const nameOf = (job) => job.name || `${words(job.spec.method)} ${job.id.slice(-6)}`;
export const FINAL = new Set(["succeeded", "failed", "cancelled", "skipped"]);
export const isFinal = (thing) => FINAL.has(thing.state);
