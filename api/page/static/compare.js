// Two jobs side by side: what they were asked, what they found, how they trained.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { get } from "./api.js";
import { Curves, trainingOf } from "./curves.js";
import { DASH, bytes, count, duration, nameOf, percent, points, share, words } from "./format.js";
import { fields } from "./repeat.js";
import { Failure, Heading, Loading, State } from "./ui.js";

const FOUND = [
  ["Clean accuracy", "clean_accuracy", percent, points], ["Under FGSM", "fgsm_accuracy", percent, points], ["Under PGD", "pgd_accuracy", percent, points],
  ["Worst case of all attacks", "robust_accuracy", percent, points], ["Proven", "proven_accuracy", percent, points],
];
const SIZES = [["File", "file_bytes", bytes], ["Of the dense file", "file_ratio", share], ["Nominal ratio", "nominal_ratio", share], ["Non-zeros", "nonzeros", count], ["Bits", "bits", String], ["Computing", "seconds", duration]];

async function eventsOf(id, signal) {
  const all = [];
  for (let after = 0; after !== null; ) {
    const page = await get(`jobs/${id}/events?limit=1000&after=${after}`, { signal });
    all.push(...page.data);
    after = page.next;
  }
  return all;
}

export function Compare({ ids }) {
  const [both, show] = useState(null);
  const [problem, fail] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    Promise.all(ids.map(async (id) => ({ job: await get(`jobs/${id}`, stop), curves: trainingOf(await eventsOf(id, stop.signal)) })))
      .then(show, (failure) => stop.signal.aborted || fail(failure));
    return () => stop.abort();
  }, []);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (!both) return html`<${Loading} />`;
  const [one, two] = both.map(({ job }) => job);
  const value = (job, name) => job.headline?.[`${name}_after`] ?? job.headline?.[`${name}_before`];
  const specs = both.map(({ job }) => new Map(fields(job.spec)));
  const paths = [...new Set([...specs[0].keys(), ...specs[1].keys()])];
  const text = (v) => (v === undefined ? DASH : JSON.stringify(v).replace(/^"|"$/g, ""));
  const row = (name, a, b, change) => html`<tr key=${name}><th scope="row">${name}</th><td class="number">${a}</td><td class="number">${b}${change ? html`<span class="change">${change}</span>` : ""}</td></tr>`;
  const head = html`<thead><tr><th scope="col"><span class="unseen">Figure</span></th>${both.map(({ job }) => html`<th scope="col" class="number" key=${job.id}><a href="#/jobs/${job.id}">${nameOf(job)}</a><br /><${State} of=${job.state} /></th>`)}</tr></thead>`;
  const line = (of) => both.map(({ job, curves }, n) => ({ name: `${n ? "second" : "first"}: ${nameOf(job)}`, color: n, dashed: n === 1, points: curves[of] }));
  const differs = paths.filter((path) => text(specs[0].get(path)) !== text(specs[1].get(path)));
  return html`<section><p class="crumb"><a href="#/jobs">Jobs</a></p><div class="head"><${Heading} title="Two jobs compared" /></div>
    <div class="grid two">
      <div class="card"><h2>Found</h2><div class="scroll narrowing" tabindex="0" role="region" aria-label="What they found"><table>${head}<tbody>
        ${FOUND.filter(([, name]) => [one, two].some((job) => value(job, name) != null)).map(([text, name, write, change]) =>
          row(text, write(value(one, name)), write(value(two, name)), value(one, name) != null && value(two, name) != null ? change(value(two, name) - value(one, name)) : ""))}
        ${SIZES.map(([text, name, write]) => row(text, one.headline?.[name] == null ? DASH : write(one.headline[name]), two.headline?.[name] == null ? DASH : write(two.headline[name])))}
      </tbody></table></div></div>
      <div class="card"><h2>Asked</h2><p class="note">${differs.length ? "Where the two differ; all else is the same." : "Both were asked the same."}</p>
        ${differs.length > 0 && html`<div class="scroll narrowing" tabindex="0" role="region" aria-label="What they were asked"><table>${head}<tbody>${differs.map((path) => row(words(path).replaceAll(".", ".\u200b"), text(specs[0].get(path)), text(specs[1].get(path))))}</tbody></table></div>`}
        ${one.model_id !== two.model_id && html`<p class="note">They had different models.</p>`}${one.dataset_id !== two.dataset_id && html`<p class="note">They had different data.</p>`}</div>
      <div class="card all"><h2>Training</h2><${Curves} title="Loss" lines=${line("loss")} format=${(v) => v.toPrecision(2)} />
        <${Curves} title="Accuracy on validation images" lines=${line("accuracy")} format=${percent} /></div>
    </div></section>`;
}
