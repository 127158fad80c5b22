// What a new job will weigh and take, as far as anybody can say before it has run.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { get } from "./api.js";
import { bytes, count, duration, share } from "./format.js";
import { fileBytes, takes } from "./predict.js";

/** Which earlier jobs were on the same architecture; each model is asked for once. */
function useArchitectures(jobs) {
  const [known, know] = useState({});
  useEffect(() => {
    const ids = [...new Set(jobs.map((job) => job.model_id))].slice(0, 12);
    Promise.all(ids.map((id) => get(`models/${id}`).then((view) => [id, view.architecture], () => [id, null])))
      .then((found) => know(Object.fromEntries(found)));
  }, [jobs]);
  return known;
}

export function Expect({ spec, mode, sweep, inputs, jobs, compresses }) {
  const architectures = useArchitectures(jobs);
  const alike = jobs.filter((job) => job.spec.method === spec.method && architectures[job.model_id] === inputs.architecture);
  const took = inputs.architecture ? takes(alike) : null;
  const dense = inputs.N ? 4 * (inputs.N + inputs.small) : null;
  const points = mode === "grid" ? (sweep.densities || []).flatMap((density) => (sweep.bits || []).map((bits) => ({ ...spec.target, density, bits }))) : [spec.target];
  const sizes = points.map((target) => fileBytes(target, inputs.N, inputs)).filter((of) => of?.bytes);
  const one = mode === "one" ? fileBytes(spec.target, inputs.N, inputs) : null;
  return html`<h2>What to expect</h2><div aria-live="polite" class="figures">
    ${!compresses ? html`<p class="note">A report alone: nothing is compressed.</p>`
      : mode === "floor" ? html`<p class="note">The sweep itself looks for the size: ${sweep.trials ?? 8} trials at most.</p>`
      : one?.most ? html`<div><b>≤ ${bytes(one.most)}</b><span>the file, as you ask; the job finds what fits</span></div>`
      : sizes.length ? html`<div><b>≈ ${sizes.length > 1 ? `${bytes(Math.min(...sizes.map((s) => s.bytes)))} – ${bytes(Math.max(...sizes.map((s) => s.bytes)))}` : bytes(sizes[0].bytes)}</b>
          <span>the file, an estimate${sizes.length === 1 ? `: ${share(sizes[0].bytes / dense)} of ${bytes(dense)}` : ""}</span></div>
        ${sizes.length === 1 && html`<div><b>${count(sizes[0].k)}</b><span>non-zeros of ${count(inputs.N)} weights${inputs.guessed ? ", for ten classes" : ""}</span></div>`}`
      : html`<p class="note">${inputs.architecture ? "How large the file will be is known once the service has looked into the network." : "Choose a network to see what the file will weigh."}</p>`}
    ${took ? html`<div><b>≈ ${duration(took.middle)}${mode === "grid" ? " each" : ""}</b><span>${took.count === 1 ? "one earlier job like it took that" : `${took.count} earlier jobs like it took ${duration(took.low)} to ${duration(took.high)}`}</span></div>`
      : html`<div><b>time unknown</b><span>no earlier job of ${spec.method}${inputs.architecture ? ` on ${inputs.architecture}` : ""} to tell by</span></div>`}</div>
    ${sizes.length > 0 && html`<p class="note">By where the non-zeros are and what they are. Files that were measured lie within a tenth of it, very sparse ones within a third.</p>`}`;
}
