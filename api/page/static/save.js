// A figure as a file: SVG with its styles in it, PNG at twice its size, the figures as CSV.

import { save } from "./api.js";

const KEPT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "paint-order", "opacity", "fill-opacity", "font-family", "font-size", "font-weight", "text-anchor"];

/** The picture as text that stands by itself: what style sheets say is written into it. */
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((element, n) => {
    const style = getComputedStyle(element);
    for (const name of KEPT) {
      const value = style.getPropertyValue(name);
      if (value) to[n].setAttribute(name, value);
    }
    for (const name of ["class", "style", "tabindex", "role", "aria-pressed"]) to[n].removeAttribute(name);
  });
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const ground = document.createElementNS(svg.namespaceURI, "rect");
  Object.entries({ width, height, fill: getComputedStyle(document.body).getPropertyValue("--surface") }).forEach((pair) => ground.setAttribute(...pair));
  copy.prepend(ground);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("xmlns", svg.namespaceURI);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

export const saveSvg = (svg, name) => save(new Blob([standalone(svg).text], { type: "image/svg+xml" }), name);

export async function savePng(svg, name) {
  const { text, width, height } = standalone(svg);
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(address);
  save(await new Promise((done) => canvas.toBlob(done, "image/png")), name);
}

/** A cell; what a spreadsheet would take for a formula is made text. */
function cell(value) {
  if (value == null) return "";
  const text = typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveCsv(sweep, name) {
  const front = new Set(sweep.front);
  const paths = [...new Set(sweep.trials.flatMap((trial) => Object.keys(trial.point)))];
  const figures = [...new Set(sweep.trials.flatMap((trial) => Object.keys(trial.headline || {})).filter((figure) => figure !== "intervals_after"))];
  const bounds = ["robust", "clean"].flatMap((of) => ["low", "high"].map((end) => [of, end]));
  const head = ["index", "job_id", "state", "front", "best", ...paths, ...figures, ...bounds.map(([of, end]) => `${of}_accuracy_after_${end}`)];
  const rows = sweep.trials.map((trial) => [
    trial.index, trial.job_id, trial.state, front.has(trial.index), trial.index === sweep.best, ...paths.map((path) => trial.point[path]), ...figures.map((figure) => trial.headline?.[figure]),
    ...bounds.map(([of, end]) => trial.headline?.intervals_after?.[of]?.[end]),
  ]);
  save(new Blob([[head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")], { type: "text/csv" }), name);
}
