// One job: where it is, what it found, its report, its files, and how to do it again.

import { html, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { download, follow, get, remove } from "./api.js";
import { Curves, trainingOf } from "./curves.js";
import { DASH, ago, bytes, count, duration, isFinal, moment, nameOf, percent, points, share, sizeOf, words } from "./format.js";
import { RowActs } from "./jobs.js";
import { Repeat } from "./repeat.js";
import { Report } from "./report.js";
import { Act, Copy, Failure, Heading, Loading, Progress, State, Sure, announce, doing, left } from "./ui.js";

/** The job and its events, as they are and as they go on. */
function useJob(id) {
  const [job, setJob] = useState(null);
  const [events, setEvents] = useState([]);
  const [problem, fail] = useState(null);
  const [round, again] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const told = [];
    let asked = false, due = false, drawing = null;
    const look = async () => {
      if (asked) { due = true; return; }
      asked = true;
      try {
        do {
          due = false;
          const now = await get(`jobs/${id}`, { signal });
          if (!signal.aborted) setJob((before) => { if (before && before.state !== now.state && isFinal(now)) announce(`${nameOf(now)}: ${now.state}`); return now; });
          await new Promise((done) => setTimeout(done, 250));
        } while (due && !signal.aborted);
      } catch (failure) { if (!signal.aborted) fail(failure); }
      asked = false;
    };
    look();
    follow(`jobs/${id}/events`, { signal, after: 0, onEvent: (event) => {
      told.push(event);
      drawing ??= setTimeout(() => { drawing = null; if (!signal.aborted) { setEvents([...told]); look(); } }, 60);
    } });
    return () => { stop.abort(); clearTimeout(drawing); };
  }, [id, round]);
  return { job, events, problem, again: () => { fail(null); again(round + 1); } };
}

export function JobView({ ids: [id] }) {
  const { job, events, problem, again } = useJob(id);
  if (problem) return html`<section class="narrow"><${Heading} title="Job" /><${Failure} problem=${problem} again=${again} /></section>`;
  if (!job) return html`<${Loading} />`;
  const warnings = events.filter((event) => event.type === "warning");
  const found = job.headline;
  return html`<section class="job">
    <p class="crumb"><a href="#/jobs">Jobs</a>${job.sweep_id && html` · <a href="#/sweeps/${job.sweep_id}">its sweep</a>`}</p>
    <div class="title"><${Heading} title=${nameOf(job)} /><${State} of=${job.state} />
      <div class="acts"><${RowActs} job=${job} name=${nameOf(job)} class="" after=${again} />
        ${isFinal(job) && html`<${Sure} label="Delete the job" question="Delete it?" onSure=${async () => {
          try { await remove(`jobs/${id}`); location.hash = "#/jobs"; } catch (failure) { announce(failure.message, true); }
        }}>Delete<//>`}
        <a class="button" href="#/new/${job.id}">New job like this</a></div></div>
    <p class="facts"><span>${words(job.spec.method)}</span>${job.spec.target && html`<span>${sizeOf(job.spec)} at ${job.spec.target.bits} bits</span>`}
      <span>${job.spec.threat ? `${job.spec.threat.norm} ${job.spec.threat.epsilon}` : ""}</span><span title=${moment(job.created_at)}>sent ${ago(job.created_at)}</span>
      ${found?.seconds != null && html`<span>took ${duration(found.seconds)}</span>`}<span><code>${job.id}</code> <${Copy} text=${job.id} label="Copy the id" /></span></p>
    <div class="grid two">
      ${!isFinal(job) && html`<div class="card now all"><div class="line"><strong>${doing(job)}</strong><span class="note">${left(job)}</span></div>
        <${Progress} job=${job} /><p class="note">${percent(job.progress)} of the whole job</p></div>`}
      ${job.error && html`<div class="notice bad all" role="alert"><p><strong>${words(job.error.code)}${job.error.param ? ` (${job.error.param})` : ""}.</strong> ${job.error.message}</p></div>`}
      ${found && html`<${Results} job=${job} />`}
      ${warnings.length > 0 && html`<div class="card all"><h2>Warnings</h2><ul class="warnings">${warnings.map((w) => html`<li key=${w.seq}><b>${words(w.code)}</b>${w.message}</li>`)}</ul></div>`}
      <${Training} events=${events} />
      <${Timeline} events=${events} job=${job} />
      ${job.state === "succeeded" && html`<${Shown} job=${job} /><${Files} job=${job} />`}
      <div class="all"><${Repeat} job=${job} /></div>
    </div>
  </section>`;
}

const ROWS = [["clean", "Clean"], ["fgsm", "Under FGSM"], ["pgd", "Under PGD"], ["robust", "Worst case of all attacks"], ["proven", "Proven"]];

function Results({ job }) {
  const h = job.headline;
  const sides = [["before", "Before"], ["dense", "Dense, made robust"], ["after", "After"]].filter(([side]) => h[`clean_accuracy_${side}`] != null);
  const at = (row, side) => h[`${row}_accuracy_${side}`];
  const from = h.clean_accuracy_dense != null ? "dense" : "before";
  const compressed = h.file_bytes != null;
  return html`<div class="card all"><h2>${!compressed ? "What it withstands" : from === "dense" ? "Before, in between, after" : "Before and after"}</h2>
    <div class="headline">
      ${compressed && html`<div><b>${h.dense_bytes ? `${count(h.dense_bytes / h.file_bytes)} ×` : DASH}</b><span>smaller: ${bytes(h.file_bytes)} of ${bytes(h.dense_bytes)}</span></div>`}
      <div><b>${percent(at("robust", compressed ? "after" : "before"))}</b><span>under all attacks${compressed ? `, ${points(at("robust", "after") - at("robust", from))} points against ${from === "dense" ? "the robust dense network" : "the upload"}` : ""}</span></div>
      <div><b>${percent(at("clean", compressed ? "after" : "before"))}</b><span>clean${compressed ? `, ${points(at("clean", "after") - at("clean", from))} points` : ""}</span></div>
      ${h.nonzeros != null && html`<div><b>${count(h.nonzeros)}</b><span>non-zeros of at most ${count(h.k)}, ${h.bits} bits each</span></div>`}
      ${h.accepted != null && html`<div><b class=${h.accepted ? "" : "bad"}>${h.accepted ? "accepted" : "not accepted"}</b><span>${(job.acceptance || []).map((t) => `${words(t.name)} ${t.passed ? "met" : "missed"}`).join(", ")}</span></div>`}
    </div>
    <div class="scroll narrowing" tabindex="0" role="region" aria-label="Accuracies"><table><thead><tr><th scope="col">Accuracy</th>${sides.map(([side, text]) => html`<th scope="col" class="number" key=${side}>${text}</th>`)}</tr></thead>
      <tbody>${ROWS.filter(([row]) => sides.some(([side]) => at(row, side) != null)).map(([row, text]) => html`<tr key=${row}><th scope="row">${text}</th>
        ${sides.map(([side]) => html`<td class="number" key=${side}>${percent(at(row, side))}</td>`)}</tr>`)}
        ${compressed && html`<tr><th scope="row">File</th>${sides.map(([side]) => html`<td class="number" key=${side}>${side === "after" ? `${bytes(h.file_bytes)} (${share(h.file_ratio)})` : bytes(h.dense_bytes)}</td>`)}</tr>`}
      </tbody></table></div></div>`;
}

function Training({ events }) {
  const { loss, accuracy, stages } = useMemo(() => trainingOf(events), [events]);
  if (!loss.length) return null;
  return html`<div class="card"><h2>Training</h2>
    <${Curves} title="Loss" lines=${[{ name: "loss", color: 0, points: loss }]} stages=${stages} format=${(v) => v.toPrecision(2)} />
    <${Curves} title="Accuracy on validation images" lines=${[{ name: "accuracy", color: 0, points: accuracy }]} stages=${stages} format=${percent} /></div>`;
}

/** The stages that were begun, each with its seconds; one that began again counts from there. */
function stagesOf(events, isOver) {
  const stages = new Map();
  for (const event of events) {
    if (event.type !== "stage") continue;
    const known = stages.get(event.stage) || { name: event.stage, seconds: 0 };
    if (event.status === "started") known.since = new Date(event.time);
    else if (known.since) { known.seconds += (new Date(event.time) - known.since) / 1000; known.since = null; }
    stages.set(event.stage, { ...known, status: event.status, message: event.message });
  }
  const ended = [...events].reverse().find((event) => event.type === "state");
  return [...stages.values()].map((stage) => {
    if (!stage.since) return stage;
    const until = isOver && ended ? new Date(ended.time) : new Date();
    return { ...stage, seconds: stage.seconds + (until - stage.since) / 1000, open: true };
  });
}

function Timeline({ events, job }) {
  const stages = stagesOf(events, isFinal(job));
  const most = Math.max(...stages.map((stage) => stage.seconds), 1);
  const glyph = (stage) => (stage.status === "skipped" ? "⊘" : !stage.open ? "●" : isFinal(job) ? "✕" : "◐");
  return html`<div class="card"><h2>Stages</h2>
    ${stages.length ? html`<ol class="stages">${stages.map((stage) => html`<li key=${stage.name} class=${stage.status}>
      <span aria-hidden="true">${glyph(stage)}</span><span>${words(stage.name)}${stage.message ? html` <span class="note">${stage.message}</span>` : ""}<span class="unseen">, ${stage.open ? "under way" : stage.status}</span></span>
      <span class="note">${duration(stage.seconds)}</span>
      <span class="track" aria-hidden="true"><span style=${{ width: `${(100 * stage.seconds) / most}%` }}></span></span></li>`)}</ol>`
      : html`<p class="note">None has begun.</p>`}</div>`;
}

function Shown({ job }) {
  const [open, set] = useState(false);
  return html`<div class="card all"><header><h2>Report</h2><span class="gap"></span>
    <button type="button" aria-expanded=${open} onClick=${() => set(!open)}>${open ? "Hide it" : "Show it here"}</button>
    <${Act} onAct=${() => download(`jobs/${job.id}/artifacts/report.html`, "report.html")}>Save it<//></header>
    ${open ? html`<${Report} job=${job} />` : html`<p class="note">Accuracies with their intervals, accuracy against epsilon, by class, layer by layer, and examples that fool the network.</p>`}</div>`;
}

function Files({ job }) {
  const [files, show] = useState(null);
  const [problem, fail] = useState(null);
  useEffect(() => { get(job.links.artifacts).then((list) => show(list.data), fail); }, [job.id]);
  return html`<div class="card all files"><h2>Files</h2>${problem ? html`<${Failure} problem=${problem} />` : !files ? html`<${Loading} />`
    : !files.length ? html`<p class="note">They have expired.</p>`
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Files"><table><thead><tr><th scope="col">Name</th><th scope="col" class="number">Size</th><th scope="col">SHA-256</th><th scope="col"><span class="unseen">Download</span></th></tr></thead><tbody>
      ${files.map((file) => html`<tr key=${file.name}><th scope="row">${file.name}</th><td class="number">${bytes(file.bytes)}</td>
        <td><code title=${file.sha256} data-sha256=${file.sha256}>${file.sha256.slice(0, 12)}…</code> <${Copy} text=${file.sha256} label="Copy the SHA-256 of ${file.name}" /></td>
        <td class="number"><${Act} class="small" label="Download ${file.name}" onAct=${() => download(file.links.self, file.name)}>Download<//></td></tr>`)}
    </tbody></table></div>`}</div>`;
}
