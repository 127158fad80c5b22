// All sweeps, newest first.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { pages } from "./api.js";
import { DASH, ago, count, duration, isFinal, percent } from "./format.js";
import { Failure, Heading, Loading, Progress, State } from "./ui.js";

export const nameOfSweep = (sweep) => sweep.name || `sweep ${sweep.id.slice(-6)}`;

/** What a sweep looks for, in words. */
export function aimOf(sweep) {
  if (sweep.goal) return `smallest with ${percent(sweep.goal.robust_accuracy)} under ${sweep.goal.attack === "worst" ? "all attacks" : sweep.goal.attack}`;
  const grid = sweep.grid || {};
  const all = { ...Object.fromEntries(Object.entries(grid).filter(([name]) => name !== "fields")), ...grid.fields };
  const parts = Object.entries(all).filter(([, values]) => values).map(([name, values]) => `${values.length} ${name.replaceAll("_", " ").split(".").at(-1)}`);
  return parts.length ? parts.join(" × ") : `${sweep.specs?.length ?? ""} specs`;
}

export function Sweeps() {
  const [all, show] = useState(null);
  const [problem, fail] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    let timer;
    const look = async () => {
      const found = [];
      try {
        await pages("sweeps", (page) => { found.push(...page.data); return found.length < 500; }, stop);
        if (stop.signal.aborted) return;
        show(found);
        fail(null);
      } catch (failure) { if (!stop.signal.aborted) fail(failure); }
      // The list has no stream of its own; a sweep's page has.
      timer = setTimeout(look, found.some((sweep) => !isFinal(sweep)) ? 5000 : 20000);
    };
    look();
    return () => { stop.abort(); clearTimeout(timer); };
  }, []);
  return html`<section><div class="head"><${Heading} title="Sweeps" />${all && html`<p class="count">${count(all.length)}</p>`}</div>
    ${problem && !all ? html`<${Failure} problem=${problem} />` : !all ? html`<${Loading} />`
      : !all.length ? html`<div class="empty big"><p>A sweep tries several sizes at once and draws what each costs. Or it looks for the smallest file that holds a floor.</p><p><a class="button first" href="#/new">New sweep</a></p></div>`
      : html`<div class="card"><div class="scroll stacked" tabindex="0" role="region" aria-label="Sweeps"><table class="all"><thead><tr><th scope="col">Sweep</th><th scope="col">Looks for</th><th scope="col">Progress</th><th scope="col" class="number">Trials</th><th scope="col" class="number">Time</th></tr></thead><tbody>
        ${all.map((sweep) => html`<tr key=${sweep.id}><th scope="row"><a href="#/sweeps/${sweep.id}">${nameOfSweep(sweep)}</a><br /><${State} of=${sweep.state} /> <span class="note">${ago(sweep.created_at)}</span></th>
          <td>${aimOf(sweep)}</td><td class="grow">${isFinal(sweep) ? html`<span class="note">${sweep.message || ""}</span>` : html`<${Progress} job=${sweep} label="progress of ${nameOfSweep(sweep)}" /><span class="note">${sweep.eta_s == null ? "" : `${duration(sweep.eta_s)} left`}</span>`}</td>
          <td class="number">${sweep.counts.succeeded} of ${Object.values(sweep.counts).reduce((a, b) => a + b, 0)}</td><td class="number">${sweep.seconds == null ? DASH : duration(sweep.seconds)}</td></tr>`)}
      </tbody></table></div></div>`}</section>`;
}
