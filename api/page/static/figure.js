// The paper's figure: accuracy, clean and robust, against bytes of the file on a log axis.

import { html, useState } from "./vendor/preact-htm.js";
import { bytes, percent, words } from "./format.js";
import { linear, logTicks, logarithmic, ticks } from "./scales.js";
import { labelOf } from "./sweep.js";
import { useWidth } from "./ui.js";

/**
 * `points` are {index, trial, isFront, bytes, robust, clean}, the latter two {accuracy, low?, high?};
 * `attack` is what the robust accuracy is under, `floors` are [accuracy, name]; `dense` is the headline of a job that made the network robust first.
 */
export function Figure({ points, attack, floors, dense, chosen, best, onChoose }) {
  const [ref, width] = useWidth(800);
  const [at, go] = useState(0);
  const height = Math.max(300, Math.min(460, width * 0.52));
  const [left, right, top, bottom] = [54, 16, 30, 46];
  const sorted = [...points].sort((a, b) => a.bytes - b.bytes);
  const sizes = sorted.map((point) => point.bytes);
  const x = logarithmic([sizes[0] / 1.25, sizes.at(-1) * 1.25], [left, width - right]);
  const lows = sorted.flatMap(({ robust, clean }) => [robust.low ?? robust.accuracy, clean.low ?? clean.accuracy]).concat(floors.map(([of]) => of));
  const highs = sorted.flatMap(({ robust, clean }) => [robust.high ?? robust.accuracy, clean.high ?? clean.accuracy]).concat(dense?.robust_accuracy_dense ?? 0);
  const low = Math.max(0, Math.min(...lows) - 0.03), high = Math.min(1, Math.max(...highs) + 0.02);
  const y = linear([low, high], [height - bottom, top]);
  const front = sorted.filter((point) => point.isFront);
  const path = (of) => front.map((point, n) => `${n ? "L" : "M"}${x(point.bytes).toFixed(1)} ${y(point[of].accuracy).toFixed(1)}`).join("");
  const move = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (by) {
      event.preventDefault();
      const next = Math.min(sorted.length - 1, Math.max(0, at + by));
      go(next);
      ref.current.querySelectorAll('[role="button"]')[next].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onChoose(sorted[at].index);
    }
  };
  const interval = (point, of, kind) => point[of].low == null ? null : html`<line class="interval ${kind}" x1=${x(point.bytes)} x2=${x(point.bytes)} y1=${y(point[of].low)} y2=${y(point[of].high)} />`;
  const said = ({ trial, robust, clean, bytes: size, isFront }) => `${labelOf(trial)}: ${bytes(size)}, robust ${percent(robust.accuracy)}${robust.low == null ? "" : ` (${percent(robust.low)} to ${percent(robust.high)})`}, clean ${percent(clean.accuracy)}${isFront ? "" : ", dominated"}`;
  return html`<div class="legend"><span class="s0"><i class="dot"></i>${attack === "robust" ? "robust: all attacks" : `under ${words(attack)}`}</span><span class="s1"><i class="ring"></i>clean</span>${front.length > 1 && html`<span><i></i>Pareto front</span>`}<span class="note">95 % intervals; dominated points are dim</span></div>
    <div ref=${ref}><svg class="chart figure" viewBox="0 0 ${width} ${height}" height=${height} role="group" aria-label="Accuracy against file size; arrow keys go from point to point" onKeyDown=${move}>
      ${ticks(y.domain, 5).map((v) => html`<g key=${`y${v}`}><line class="axis" x1=${left} x2=${width - right} y1=${y(v)} y2=${y(v)} /><text x=${left - 10} y=${y(v) + 4} text-anchor="end">${`${Math.round(100 * v)} %`}</text></g>`)}
      ${logTicks(x.domain, Math.max(3, width / 90)).map((v) => html`<g key=${`x${v}`}><line class="axis" x1=${x(v)} x2=${x(v)} y1=${height - bottom} y2=${height - bottom + 5} /><text x=${x(v)} y=${height - bottom + 20} text-anchor="middle">${bytes(v).replace(/\.0+ /, " ")}</text></g>`)}
      <text x=${(left + width - right) / 2} y=${height - 6} text-anchor="middle">bytes of the file</text><text x=${left - 46} y=${top - 17}>accuracy</text>
      ${floors.map(([value, name]) => html`<g key=${name}><line class="floor" x1=${left} x2=${width - right} y1=${y(value)} y2=${y(value)} /><text class="flag" x=${width - right} y=${y(value) - 6} text-anchor="end">${name} ${percent(value)}</text></g>`)}
      ${dense && html`<g><line class="reference" x1=${left} x2=${width - right} y1=${y(dense.robust_accuracy_dense)} y2=${y(dense.robust_accuracy_dense)} /><text x=${width - right} y=${top - 17} text-anchor="end">┈ dense, robust ${percent(dense.robust_accuracy_dense)} (${bytes(dense.dense_bytes)})</text></g>`}
      <path class="front clean" d=${path("clean")} /><path class="front robust" d=${path("robust")} />
      ${sorted.map((point, n) => html`<g key=${point.index} class="point ${point.isFront ? "" : "dominated"} ${point.index === chosen ? "chosen" : ""}">
        ${interval(point, "clean", "clean")}${interval(point, "robust", "robust")}
        <circle class="clean" r="4.5" cx=${x(point.bytes)} cy=${y(point.clean.accuracy)} onClick=${() => onChoose(point.index)}><title>${said(point)}</title></circle>
        <circle class="robust" r=${point.index === best ? 8 : 6} cx=${x(point.bytes)} cy=${y(point.robust.accuracy)} role="button" tabindex=${n === at ? 0 : -1} aria-label=${said(point)} aria-pressed=${point.index === chosen ? "true" : "false"} onFocus=${() => go(n)} onClick=${() => onChoose(point.index)}><title>${said(point)}</title></circle></g>`)}
    </svg></div>`;
}
