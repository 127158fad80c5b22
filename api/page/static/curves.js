// A small chart of lines: what a job tells while it trains, or what two did.

import { html } from "./vendor/preact-htm.js";
import { around, linear, ticks } from "./scales.js";
import { useWidth } from "./ui.js";

/** `lines` are {name, color: 0 to 3, dashed?, points: [[x, y]]}; `stages` are [x, name] where one begins. */
export function Curves({ title, lines, stages = [], format = String, height = 190, domain }) {
  const [ref, width] = useWidth();
  const drawn = lines.filter((line) => line.points.length);
  const [left, right, top, bottom] = [48, 8, 18, 24];
  if (!drawn.length) return html`<figure class="plain" ref=${ref}><figcaption><h3>${title}</h3></figcaption><p class="note">Nothing yet.</p></figure>`;
  const all = drawn.flatMap((line) => line.points);
  const xs = all.map(([x]) => x);
  const x = linear([Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)], [left, width - right]);
  const y = linear(domain || around(all.map(([, v]) => v)), [height - bottom, top]);
  const room = (n) => (stages[n + 1] ? x(stages[n + 1][0]) : width) - x(stages[n][0]);
  const last = drawn.map((line) => `${line.name} ${format(line.points.at(-1)[1])}`).join(", ");
  return html`<figure class="plain" ref=${ref}>
    <figcaption><h3>${title}</h3>${drawn.length > 1 && html`<div class="legend">${drawn.map((line) => html`<span key=${line.name}><i class="s${line.color}"></i>${line.name}</span>`)}</div>`}</figcaption>
    <svg class="chart" role="img" aria-label="${title}: ${last}" viewBox="0 0 ${width} ${height}" height=${height}>
      ${ticks(y.domain, 4).map((v) => html`<g key=${`y${v}`}><line class="axis" x1=${left} x2=${width - right} y1=${y(v)} y2=${y(v)} /><text x=${left - 8} y=${y(v) + 4} text-anchor="end">${format(v)}</text></g>`)}
      ${ticks(x.domain, Math.max(2, width / 110)).filter(Number.isInteger).map((v) => html`<text key=${`x${v}`} x=${x(v)} y=${height - 6} text-anchor="middle">${v}</text>`)}
      ${stages.map(([at, name], n) => html`<g key=${name}><line class="stage" x1=${x(at)} x2=${x(at)} y1=${top} y2=${height - bottom} />${room(n) > 7 * name.length && html`<text x=${x(at) + 4} y=${top - 6}>${name}</text>`}</g>`)}
      ${drawn.map((line) => html`<g key=${line.name} class="s${line.color}">
        <path class="line" stroke="currentColor" stroke-dasharray=${line.dashed ? "5 4" : undefined} d=${line.points.map(([a, b], n) => `${n ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("")} />
        <circle fill="currentColor" r="3" cx=${x(line.points.at(-1)[0])} cy=${y(line.points.at(-1)[1])}><title>${line.name}: ${format(line.points.at(-1)[1])}</title></circle></g>`)}
    </svg>
  </figure>`;
}

/** What training told, as lines over the epochs of all stages one after the other. */
export function trainingOf(events) {
  const loss = [], accuracy = [], stages = [];
  let done = 0, stage = null, ended = 0;
  for (const event of events) {
    if (event.type !== "metric" || event.loss === undefined) continue;
    if (event.stage !== stage) {
      done = ended;
      stage = event.stage;
      stages.push([done + 1, stage.replaceAll("_", " ")]);
    }
    const at = done + event.epoch;
    // An epoch that was done again after a crash replaces what it told before.
    while (loss.length && loss.at(-1)[0] >= at) loss.pop();
    while (accuracy.length && accuracy.at(-1)[0] >= at) accuracy.pop();
    loss.push([at, event.loss]);
    if (event.validation_accuracy !== undefined) accuracy.push([at, event.validation_accuracy]);
    ended = at;
  }
  return { loss, accuracy, stages };
}
