// One sweep: its figure as it grows, all options side by side, its trials.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { download, follow, get, post, remove } from "./api.js";
import { Figure } from "./figure.js";
import { DASH, ago, bytes, count, duration, isFinal, moment, percent, share, words } from "./format.js";
import { Parallel } from "./parallel.js";
import { saveCsv, savePng, saveSvg } from "./save.js";
import { aimOf, nameOfSweep } from "./sweeps.js";
import { Act, Copy, Failure, Heading, Loading, Progress, State, Sure, announce } from "./ui.js";

function useSweep(id) {
  const [sweep, setSweep] = useState(null);
  const [problem, fail] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    let timer = null, ended = false;
    const look = async () => {
      clearTimeout(timer);
      timer = null;
      try {
        const now = await get(`sweeps/${id}`, { signal });
        if (signal.aborted) return;
        setSweep((before) => {
          if (before && before.state !== now.state && isFinal(now)) announce(`${nameOfSweep(now)}: ${now.state}`);
          else if (before && now.counts.succeeded > before.counts.succeeded) announce(`${now.counts.succeeded} trials have succeeded`);
          return now;
        });
        fail(null);
        ended = isFinal(now);
      } catch (failure) { if (!signal.aborted) fail(failure); }
      // The progress of trials is no event of the sweep.
      if (!ended && !signal.aborted) timer ??= setTimeout(look, 4000);
    };
    look();
    let due = null;
    follow(`sweeps/${id}/events`, { signal, after: 0, onEvent: () => { due ??= setTimeout(() => { due = null; if (!signal.aborted) look(); }, 150); } });
    return () => { stop.abort(); clearTimeout(timer); clearTimeout(due); };
  }, [id]);
  return [sweep, problem];
}

/** The attack that the figure's robust accuracy is under: a goal's own, else the worst case of all. */
const attackOf = (sweep) => (sweep.goal && sweep.goal.attack !== "worst" ? sweep.goal.attack : "robust");

/** A trial as a point of the figure, null before it has figures. */
function pointOf(trial, front, attack) {
  const h = trial.headline;
  if (!h || h.file_bytes == null) return null;
  const { clean, [attack]: robust } = h.intervals_after || {};
  return {
    index: trial.index, trial, isFront: front.has(trial.index), bytes: h.file_bytes,
    robust: robust || { accuracy: h.robust_accuracy_after }, clean: clean || { accuracy: h.clean_accuracy_after },
  };
}

export const labelOf = (trial) => Object.entries(trial.point).map(([path, value]) => `${words(path.split(".").at(-1))} ${typeof value === "number" && value < 1 ? share(value) : value}`).join(", ") || `trial ${trial.index + 1}`;

function floorsOf(sweep) {
  const floors = [];
  if (sweep.goal) floors.push([sweep.goal.robust_accuracy, "floor"]);
  const accepted = sweep.spec?.accept?.robust_accuracy;
  if (accepted) floors.push([accepted, "accepted from"]);
  return floors;
}

export function SweepView({ ids: [id] }) {
  const [sweep, problem] = useSweep(id);
  const [chosen, choose] = useState(null);
  const picture = useRef();
  if (!sweep) return problem ? html`<section class="narrow"><${Heading} title="Sweep" /><${Failure} problem=${problem} /></section>` : html`<${Loading} />`;
  const front = new Set(sweep.front);
  const points = sweep.trials.map((trial) => pointOf(trial, front, attackOf(sweep))).filter(Boolean);
  const dense = sweep.trials.map((trial) => trial.headline).find((h) => h?.robust_accuracy_dense != null);
  const name = nameOfSweep(sweep);
  const svg = () => picture.current.querySelector("svg");
  const over = isFinal(sweep);
  return html`<section class="sweep">
    <p class="crumb"><a href="#/sweeps">Sweeps</a></p>
    <div class="title"><${Heading} title=${name} /><${State} of=${sweep.state} /><div class="acts">
      ${over ? html`<${Sure} label="Delete the sweep and its trials" question="Delete all of it?" onSure=${async () => { try { await remove(`sweeps/${id}`); location.hash = "#/sweeps"; } catch (failure) { announce(failure.message, true); } }}>Delete<//>`
        : html`<${Sure} label="Cancel the sweep" question="Cancel it?" onSure=${() => post(`sweeps/${id}/cancel`).catch((failure) => announce(failure.message, true))}>Cancel<//>`}</div></div>
    <p class="facts"><span>${aimOf(sweep)}</span><span title=${moment(sweep.created_at)}>begun ${ago(sweep.created_at)}</span>${sweep.seconds != null && html`<span>${over ? "took" : "for"} ${duration(sweep.seconds)}</span>`}<span><code>${sweep.id}</code> <${Copy} text=${sweep.id} label="Copy the id" /></span></p>
    ${sweep.message && html`<p class="notice" role="status">${sweep.message}</p>`}
    <div class="grid">
      ${!over && html`<div class="card now"><div class="line"><strong>${sweep.counts.succeeded} of ${sweep.trials.length} trials</strong><span class="note">${sweep.eta_s == null ? "" : `${duration(sweep.eta_s)} left`}</span></div><${Progress} job=${sweep} /></div>`}
      <div class="card"><header><h2>What size costs</h2><span class="gap"></span>
        ${points.length > 0 && html`<span class="savers" role="group" aria-label="Save the figure"><${Act} class="small" onAct=${() => savePng(svg(), `${name}.png`)}>PNG<//><${Act} class="small" onAct=${() => saveSvg(svg(), `${name}.svg`)}>SVG<//><${Act} class="small" onAct=${() => saveCsv(sweep, `${name}.csv`)}>CSV<//></span>`}</header>
        <div ref=${picture}>${points.length ? html`<${Figure} points=${points} attack=${attackOf(sweep)} floors=${floorsOf(sweep)} dense=${dense} chosen=${chosen} onChoose=${choose} best=${sweep.best} />` : html`<p class="empty">The first trial that ends is the first point.</p>`}</div>
        ${chosen != null && html`<${Chosen} trial=${sweep.trials[chosen]} isBest=${chosen === sweep.best} />`}</div>
      ${points.length > 1 && html`<div class="card"><h2>All options</h2><${Parallel} points=${points} chosen=${chosen} onChoose=${choose} /></div>`}
      <${Trials} sweep=${sweep} front=${front} onChoose=${choose} />
    </div></section>`;
}

function Chosen({ trial, isBest }) {
  const h = trial.headline;
  return html`<div class="chosen" role="status"><div><strong>${labelOf(trial)}</strong>${isBest ? html` <span class="tag">best</span>` : ""}
    <p class="note">${bytes(h?.file_bytes)}, robust ${percent(h?.robust_accuracy_after)}, clean ${percent(h?.clean_accuracy_after)}</p></div>
    <span class="gap"></span><a class="button" href="#/jobs/${trial.job_id}">Open the job</a>
    <${Act} class="first" onAct=${() => download(`jobs/${trial.job_id}/artifacts/model.atmc`, "model.atmc")}>Download model.atmc<//></div>`;
}

function Trials({ sweep, front, onChoose }) {
  return html`<div class="card"><h2>Trials</h2><div class="scroll" tabindex="0" role="region" aria-label="Trials"><table class="all"><thead><tr><th scope="col">Trial</th><th scope="col">State</th><th scope="col" class="number">Robust</th><th scope="col" class="number">Clean</th><th scope="col" class="number">File</th><th scope="col" class="number">Non-zeros</th><th scope="col" class="number">Time</th></tr></thead><tbody>
    ${sweep.trials.map((trial) => {
      const h = trial.headline || {};
      const said = trial.reason || trial.error?.message || (trial.confirms != null ? `confirms trial ${trial.confirms + 1}` : "");
      return html`<tr key=${trial.index} class=${trial.headline && !front.has(trial.index) ? "dim" : ""}><th scope="row">${trial.job_id ? html`<a href="#/jobs/${trial.job_id}">${labelOf(trial)}</a>` : labelOf(trial)}${trial.index === sweep.best ? html` <span class="tag">best</span>` : front.has(trial.index) ? html` <span class="tag plain">front</span>` : ""}${said && html`<br /><span class="note">${said}</span>`}</th>
        <td><${State} of=${trial.state} />${!isFinal(trial) && trial.job_id ? html`<${Progress} job=${trial} label="progress of ${labelOf(trial)}" />` : ""}</td>
        <td class="number">${h.file_bytes != null ? html`<button type="button" class="link" aria-label="Show ${labelOf(trial)} in the figure" onClick=${() => onChoose(trial.index)}>${percent(h.robust_accuracy_after)}</button>` : DASH}</td><td class="number">${percent(h.clean_accuracy_after)}</td><td class="number">${bytes(h.file_bytes)}</td><td class="number">${count(h.nonzeros)}</td><td class="number">${duration(h.seconds)}</td></tr>`;
    })}</tbody></table></div></div>`;
}
