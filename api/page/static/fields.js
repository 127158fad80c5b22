// Form fields that know what the schema says of them.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { valueAt } from "./check.js";
import { words } from "./format.js";

const idOf = (path) => `field-${path.replaceAll(".", "-")}`;

/** A label, what stands below it, and what is wrong, tied together for readers. */
export function Field({ path, label, note, problem, children }) {
  const id = idOf(path);
  const said = [note && `${id}-note`, problem && `${id}-problem`].filter(Boolean).join(" ") || undefined;
  return html`<div class="field ${problem ? "wrong" : ""}"><label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": said, "aria-invalid": problem ? "true" : undefined })}
    ${note && html`<p class="note" id="${id}-note">${note}</p>`}
    ${problem && html`<p class="problem" id="${id}-problem">${problem}</p>`}</div>`;
}

// Text that is a number as soon as it can be read as one, so that what is typed stays as it is.
const asNumber = (text) => (text.trim() === "" ? undefined : Number.isFinite(Number(text)) ? Number(text) : text.trim());

export function NumberInput({ value, onChange, ...rest }) {
  const [text, type] = useState(value ?? "");
  useEffect(() => { if (asNumber(String(text)) !== value) type(value ?? ""); }, [value]);
  return html`<input type="text" inputmode="decimal" autocomplete="off" ...${rest} value=${text} onInput=${(e) => { type(e.target.value); onChange(asNumber(e.target.value)); }} />`;
}

/** A slider on a log axis beside its number. */
export function LogSlider({ value, onChange, low, high, label, id, ...rest }) {
  const steps = 300;
  const at = typeof value === "number" && value > 0 ? Math.round((steps * Math.log(value / low)) / Math.log(high / low)) : 0;
  const move = (event) => onChange(Number((low * (high / low) ** (event.target.value / steps)).toPrecision(2)));
  return html`<div class="slider"><input type="range" min="0" max=${steps} value=${at} aria-label="${label}, slider" aria-valuetext=${String(value)} onInput=${move} />
    <${NumberInput} id=${id} value=${value} onChange=${onChange} ...${rest} /></div>`;
}

/** Whatever kind of field the schema tells of. */
export function SchemaField({ of, spec, onChange, problem }) {
  const { path, schema } = of;
  const value = valueAt(spec, path);
  const set = (next) => onChange(path, next);
  const preset = schema.default === undefined || schema.default === null ? "" : String(schema.default);
  return html`<${Field} path=${path} label=${of.title} note=${schema.description} problem=${problem}>${(rest) => {
    if (schema.enum) {
      const kinds = schema.enum;
      return html`<select ...${rest} value=${value === undefined ? "" : String(value)} onChange=${(e) => set(e.target.value === "" ? undefined : kinds.find((kind) => String(kind) === e.target.value))}>
        <option value="">${preset ? `${preset} (by default)` : "by default"}</option>${kinds.map((kind) => html`<option key=${kind} value=${String(kind)}>${kind}</option>`)}</select>`;
    }
    if (schema.type === "boolean") {
      return html`<select ...${rest} value=${value === undefined ? "" : String(value)} onChange=${(e) => set(e.target.value === "" ? undefined : e.target.value === "true")}>
        <option value="">${preset === "true" ? "yes" : "no"} (by default)</option><option value="true">yes</option><option value="false">no</option></select>`;
    }
    if (schema.type === "array") return html`<${ListInput} ...${rest} value=${value} onChange=${set} />`;
    return html`<${NumberInput} ...${rest} value=${value} placeholder=${preset} onChange=${set} />`;
  }}<//>`;
}

/** Several values, with blanks or commas between them. */
export function ListInput({ value, onChange, ...rest }) {
  const read = (text) => { const all = text.split(/[\s,]+/).filter(Boolean).map(asNumber); return all.length ? all : undefined; };
  const [text, type] = useState((value || []).join(" "));
  return html`<input type="text" autocomplete="off" ...${rest} value=${text} onInput=${(e) => { type(e.target.value); onChange(read(e.target.value)); }} />`;
}

/** A place to drop a file at, or to choose one. */
export function Drop({ id, label, note, accept, file, shown, problem, onFile, onClear }) {
  const [over, hover] = useState(false);
  const drop = (event) => { event.preventDefault(); hover(false); if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]); };
  return html`<div class="drop ${over ? "over" : ""} ${problem ? "wrong" : ""} ${shown ? "has" : ""}"
    onDragOver=${(e) => { e.preventDefault(); hover(true); }} onDragLeave=${() => hover(false)} onDrop=${drop}>
    <input type="file" id=${id} class="unseen" accept=${accept} onChange=${(e) => e.target.files[0] && onFile(e.target.files[0])} aria-describedby="${id}-note" />
    <label for=${id}><b>${label}</b><span class="note">${shown || (file ? file.name : "Drop a file, or choose one")}</span></label>
    <p class="note" id="${id}-note">${problem ? html`<span class="problem">${problem}</span>` : note}</p>
    ${shown && html`<button type="button" class="quiet small" onClick=${onClear} aria-label="Take ${label} away">Change</button>`}</div>`;
}

export const Group = ({ title, fields, ...rest }) => html`<details class="group"><summary>${words(title)}</summary><div class="fields">
  ${fields.map((of) => html`<${SchemaField} key=${of.path} of=${of} ...${rest} problem=${rest.problems[of.path]} />`)}</div></details>`;
