// Parallel coordinates: a line a trial, an axis for every option that differs and every figure.

import { html } from "./vendor/preact-htm.js";
import { bytes, count, duration, percent, words } from "./format.js";
import { around, linear, logarithmic } from "./scales.js";
import { labelOf } from "./sweep.js";
import { useWidth } from "./ui.js";

const FIGURES = [["file_bytes", "file", bytes, true], ["nonzeros", "non-zeros", count, true], ["clean_accuracy_after", "clean", percent], ["robust_accuracy_after", "robust", percent], ["latency_c_s", "latency", (s) => `${(1e6 * s).toPrecision(3)} µs`, true], ["seconds", "time", duration, true]];

function axesOf(points) {
  const paths = [...new Set(points.flatMap(({ trial }) => Object.keys(trial.point)))];
  const options = paths.map((path) => ({ name: words(path.split(".").at(-1)), of: (point) => point.trial.point[path], format: String, isLog: /density|ratio|bytes|macs|\.k$/.test(path) }));
  const figures = FIGURES.map(([field, name, format, isLog]) => ({ name, of: (point) => point.trial.headline[field], format, isLog }));
  return [...options, ...figures].filter((axis) => {
    const values = points.map(axis.of);
    return values.every((value) => value != null) && new Set(values).size > 1;
  });
}

/** Where a value stands on its axis; texts stand in the order in which they come. */
function scaleOf(axis, points, range) {
  const values = points.map(axis.of);
  if (values.every((value) => typeof value === "number")) {
    const isLog = axis.isLog && Math.min(...values) > 0;
    const scale = isLog ? logarithmic([Math.min(...values), Math.max(...values)], range) : linear(around(values, 0), range);
    return { scale, ends: [Math.min(...values), Math.max(...values)] };
  }
  const all = [...new Set(values.map(String))];
  const scale = linear([0, all.length - 1], range);
  return { scale: (value) => scale(all.indexOf(String(value))), ends: all };
}

export function Parallel({ points, chosen, onChoose }) {
  const [ref, outer] = useWidth(800);
  const axes = axesOf(points);
  const width = Math.max(outer, 92 * axes.length);
  const [height, top, bottom, side] = [280, 44, 22, 46];
  const x = linear([0, Math.max(1, axes.length - 1)], [side, width - side]);
  const scaled = axes.map((axis) => scaleOf(axis, points, [height - bottom, top]));
  const drawn = [...points].sort((a, b) => Number(a.isFront) - Number(b.isFront) || Number(a.index === chosen) - Number(b.index === chosen));
  return html`<div ref=${ref} class="scroll" tabindex="0" role="region" aria-label="Options and figures of all trials">
    <svg class="chart parallel" viewBox="0 0 ${width} ${height}" width=${width} height=${height} role="img" aria-label="Parallel coordinates of ${points.length} trials over ${axes.map((axis) => axis.name).join(", ")}; the table below has the same figures">
      ${axes.map((axis, n) => html`<g key=${axis.name}><line class="axis strong" x1=${x(n)} x2=${x(n)} y1=${top} y2=${height - bottom} /><text class="ink" x=${x(n)} y="14" text-anchor="middle">${axis.name}</text>
        ${scaled[n].ends.map((value) => html`<text key=${value} x=${x(n)} y=${scaled[n].scale(value) + (scaled[n].scale(value) < (top + height - bottom) / 2 ? -8 : 16)} text-anchor="middle">${axis.format(value)}</text>`)}</g>`)}
      ${drawn.map((point) => html`<path key=${point.index} class="trial ${point.isFront ? "front" : ""} ${point.index === chosen ? "chosen" : ""}" onClick=${() => onChoose(point.index)}
        d=${axes.map((axis, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${scaled[n].scale(axis.of(point)).toFixed(1)}`).join("")}><title>${labelOf(point.trial)}</title></path>`)}
    </svg></div>`;
}
