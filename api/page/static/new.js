// A new job, or a sweep of them: what is wrong is said before anything is sent.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { get } from "./api.js";
import { fieldsOf, problemsOf, valueAt, withValue } from "./check.js";
import { Expect } from "./expect.js";
import { Field, Group, ListInput, LogSlider, NumberInput } from "./fields.js";
import { Inputs, useInputs } from "./inputs.js";
import { send } from "./sending.js";
import { Choice, Failure, Heading, Loading, Progress } from "./ui.js";
import { bytes, share, words } from "./format.js";
import { fileBytes } from "./predict.js";

const SIZES = { density: "Density", nominal_ratio: "Nominal ratio", max_bytes: "Bytes", k: "Non-zeros", macs: "Multiply-adds" };
const EPSILONS = { linf: ["2/255", "4/255", "8/255", "0.1", "0.3"], l2: ["0.25", "0.5", "1"] };
// What the form has a place of its own for.
const OWN = new Set(["method", "target.bits", "threat.norm", "threat.epsilon", "training.preset", "evaluation.level", ...Object.keys(SIZES).map((size) => `target.${size}`)]);
const FIRST = { method: "atmc", target: { density: 0.1, bits: 4 }, threat: { norm: "linf", epsilon: "8/255" } };

function useCatalogue(like) {
  const [known, know] = useState(null);
  const [problem, fail] = useState(null);
  useEffect(() => {
    const job = like ? get(`jobs/${like}`) : null;
    Promise.all([get("methods"), get("architectures"), get("attacks"), get("page.json"), get("jobs?state=succeeded&limit=100"), job])
      .then(([methods, architectures, attacks, limits, jobs, earlier]) => know({ methods: methods.data, architectures: architectures.data, attacks: attacks.data, limits, jobs: jobs.data, earlier }), fail);
  }, []);
  return [known, problem];
}

export function NewJob({ ids: [like] }) {
  const [known, problem] = useCatalogue(like);
  if (problem) return html`<section class="narrow"><${Heading} title="New job" /><${Failure} problem=${problem} /></section>`;
  return known ? html`<${Form} known=${known} />` : html`<${Loading} />`;
}

/** Every spec that would be sent: one, or one a point of the grid. */
function specsOf(spec, mode, sweep) {
  if (mode !== "grid") return [spec];
  return (sweep.densities || [undefined]).flatMap((density) => (sweep.bits || [undefined]).map((bits) => ({ ...spec, target: { ...rest(spec.target), density, bits } })));
}
const rest = (target = {}) => Object.fromEntries(Object.entries(target).filter(([name]) => !(name in SIZES) && name !== "bits"));

function problemsIn(spec, mode, sweep, schema) {
  const found = {};
  const note = (path, said) => { found[path] ??= said; };
  const list = (name, of) => { if (!Array.isArray(sweep[name]) || sweep[name].some((n) => typeof n !== "number")) note(`sweep.${name}`, { message: `${of} are numbers, at least one`, missing: !sweep[name] }); };
  if (mode === "grid") { list("densities", "densities"); list("bits", "bits"); }
  if (mode === "floor" && !(sweep.floor > 0 && sweep.floor < 1)) note("sweep.floor", { message: "a floor is a share between 0 and 1", missing: sweep.floor === undefined });
  const trials = sweep.trials ?? 8;
  if (mode === "floor" && !(Number.isInteger(trials) && trials >= 2 && trials <= 50)) note("sweep.trials", { message: "trials are a whole number from 2 to 50" });
  if (mode === "grid" && specsOf(spec, mode, sweep).length > 200) note("sweep.densities", { message: "a grid has 200 trials at most" });
  if (mode !== "one" && spec.method === "evaluate") note("method", { message: "evaluate compresses nothing, so there is nothing to sweep" });
  const whole = mode === "floor" && schema.properties.target ? [{ ...spec, target: { ...rest(spec.target), density: 0.1, bits: 4 } }] : specsOf(spec, mode, sweep);
  for (const one of whole) {
    for (const said of problemsOf(JSON.parse(JSON.stringify(one)), schema)) {
      const path = mode === "grid" ? { "target.density": "sweep.densities", "target.bits": "sweep.bits" }[said.path] || said.path : said.path;
      note(path, said);
    }
  }
  return found;
}

function Form({ known }) {
  const { earlier } = known;
  const [spec, setSpec] = useState(earlier?.spec || FIRST);
  const [name, setName] = useState(earlier?.name || "");
  const [mode, setMode] = useState("one");
  const [sweep, setSweep] = useState({ densities: [0.1, 0.05, 0.02], bits: [8, 4], floor: 0.5, attack: "worst", trials: 8 });
  const [tried, attempt] = useState(false);
  const [sending, report] = useState(null);
  const [refused, refuse] = useState(null);
  const inputs = useInputs(known, earlier);
  const form = useRef();
  const method = known.methods.find((of) => of.name === spec.method) || known.methods[0];
  const schema = method.spec_schema;
  const compresses = Boolean(schema.required?.includes("target"));
  const set = (path, value) => { refuse(null); setSpec((before) => withValue(before, path, value)); };
  const all = useMemo(() => problemsIn(spec, mode, sweep, schema), [spec, mode, sweep, schema]);
  const wrong = { ...inputs.problems, ...all };
  if (refused?.param && !wrong[refused.param]) wrong[refused.param] = { message: refused.message };
  // What is only missing is not called wrong before one has tried to send it.
  const shown = Object.fromEntries(Object.entries(wrong).filter(([, said]) => tried || !said.missing).map(([path, said]) => [path, said.message]));
  const chooseMethod = (next) => {
    const takes = known.methods.find((of) => of.name === next).spec_schema;
    refuse(null);
    setSpec((before) => {
      const kept = Object.fromEntries(Object.entries(before).filter(([part]) => takes.properties[part]));
      if (!takes.required?.includes("target")) { delete kept.target; setMode("one"); }
      else kept.target ??= FIRST.target;
      return { ...kept, method: next };
    });
  };
  const submit = async (event) => {
    event.preventDefault();
    attempt(true);
    if (Object.keys(wrong).length && !(refused && Object.keys(wrong).length === 1)) {
      setTimeout(() => (form.current.querySelector('[aria-invalid="true"], .drop.wrong input') || form.current.querySelector(".problems"))?.focus());
      return;
    }
    refuse(null);
    try {
      const made = await send({ spec, name, mode, sweep, inputs, onProgress: report });
      location.hash = mode === "one" ? `#/jobs/${made.id}` : `#/sweeps/${made.id}`;
    } catch (problem) {
      refuse(problem);
      report(null);
    }
  };
  const part = { spec, onChange: set, problems: shown };
  const more = fieldsOf(schema).filter((of) => !OWN.has(of.path) && valueAt(schema.properties, of.path)?.const === undefined);
  const groups = Object.groupBy ? Object.groupBy(more, (of) => (of.path.includes(".") ? of.path.split(".")[0] : "other")) : {};
  return html`<form class="new" ref=${form} onSubmit=${submit} novalidate>
    <div class="head"><${Heading} title=${mode === "one" ? "New job" : "New sweep"} /><span class="gap"></span>
      ${compresses && html`<${Choice} label="What to make" value=${mode} onChange=${(next) => { refuse(null); setMode(next); }} options=${[["one", "One job"], ["grid", "A grid of sizes"], ["floor", "A floor to hold"]]} />`}</div>
    <div class="sides"><div class="grid">
      <section class="card"><h2>Network and data</h2><${Inputs} inputs=${inputs} known=${known} problems=${shown} /></section>
      <section class="card"><h2>Method</h2>
        <${Field} path="method" label="Method" note=${method.description} problem=${shown.method}>${(rest) => html`<select ...${rest} value=${spec.method} onChange=${(e) => chooseMethod(e.target.value)}>
          ${known.methods.map((of) => html`<option key=${of.name} value=${of.name}>${of.name}</option>`)}</select>`}<//>
        ${compresses && mode === "one" && html`<${Target} ...${part} schema=${schema} inputs=${inputs} />`}
        ${mode === "grid" && html`<${Grid} sweep=${sweep} onChange=${setSweep} problems=${shown} />`}
        ${mode === "floor" && html`<${Floor} sweep=${sweep} onChange=${setSweep} problems=${shown} attacks=${known.attacks} />`}</section>
      <section class="card"><h2>Threat</h2><${Threat} ...${part} /></section>
      <section class="card"><h2>Training and report</h2><div class="fields">
        ${schema.properties.training && html`<${Preset} path="training.preset" label="Training" ...${part} schema=${schema} />`}
        <${Preset} path="evaluation.level" label="Evaluation" ...${part} schema=${schema} />
        <${Field} path="name" label="Name" note="For yourself; the list finds it." problem=${shown.name}>${(rest) => html`<input type="text" maxlength="200" ...${rest} value=${name} onInput=${(e) => setName(e.target.value)} />`}<//></div>
        ${Object.entries(groups).map(([title, fields]) => html`<${Group} key=${title} title=${title === "other" ? "all else" : `more of ${title}`} fields=${fields} ...${part} />`)}</section>
    </div>
    <aside class="card expect" aria-label="What to expect"><${Expect} spec=${spec} mode=${mode} sweep=${sweep} inputs=${inputs} jobs=${known.jobs} compresses=${compresses} />
      ${tried && Object.keys(wrong).length > 0 && html`<div class="problems" role="alert" tabindex="-1"><h3>Before it can be sent</h3><ul>${Object.entries(wrong).map(([path, said]) => html`<li key=${path}>${said.message}</li>`)}</ul></div>`}
      ${refused && html`<${Failure} problem=${refused} />`}
      ${sending && html`<div role="status"><p class="note">${sending.text}</p><${Progress} job=${{ progress: sending.share }} label=${sending.text} /></div>`}
      <button class="first send" disabled=${Boolean(sending)}>${sending ? "Sending …" : mode === "one" ? "Send the job" : "Start the sweep"}</button></aside></div>
  </form>`;
}

function Target({ spec, onChange, problems, schema, inputs }) {
  const file = fileBytes(spec.target, inputs.N, inputs);
  const sizes = Object.keys(SIZES).filter((size) => valueAt(schema, "properties.target.properties")[size]);
  const size = sizes.find((of) => valueAt(spec, `target.${of}`) !== undefined) || "density";
  const path = `target.${size}`;
  const START = { density: 0.1, nominal_ratio: 0.02, max_bytes: 20000, k: 10000, macs: 0.5 };
  const choose = (next) => { onChange(path, undefined); onChange(`target.${next}`, START[next]); if (next === "macs") onChange("target.structure", "channel"); };
  const bits = schema.properties.target.properties.bits.enum || [1, 2, 3, 4, 5, 6, 7, 8, 16, 32];
  const value = valueAt(spec, path);
  const isShare = ["density", "nominal_ratio", "macs"].includes(size);
  return html`<div class="field"><span class="label" id="size-label">Size by</span><${Choice} label="Size by" value=${size} onChange=${choose} options=${sizes.map((of) => [of, SIZES[of]])} /></div>
    <${Field} path=${path} label=${SIZES[size]} note=${schema.properties.target.properties[size].description} problem=${problems[path] || problems["target.size"] || problems.target}>${(rest) =>
      isShare ? html`<${LogSlider} ...${rest} label=${SIZES[size]} low=${0.001} high=${1} value=${value} onChange=${(v) => onChange(path, v)} />`
        : html`<${LogSlider} ...${rest} label=${SIZES[size]} low=${100} high=${1e7} value=${value} onChange=${(v) => onChange(path, typeof v === "number" ? Math.round(v) : v)} />`}<//>
    ${file?.bytes && html`<p class="near">≈ ${bytes(file.bytes)}, ${share(file.bytes / 4 / (inputs.N + inputs.small))} of the dense file</p>`}
    <${Field} path="target.bits" label="Bits a weight" note="1 to 8 share a codebook; 16 and 32 are floats." problem=${problems["target.bits"]}>${(rest) => html`<select ...${rest} value=${String(spec.target?.bits ?? "")} onChange=${(e) => onChange("target.bits", Number(e.target.value))}>
      ${bits.map((n) => html`<option key=${n} value=${String(n)}>${n}</option>`)}</select>`}<//>`;
}

function Grid({ sweep, onChange, problems }) {
  const set = (name) => (value) => onChange({ ...sweep, [name]: value });
  const trials = (sweep.densities?.length || 0) * (sweep.bits?.length || 0);
  return html`<div class="fields">
    <${Field} path="sweep.densities" label="Densities" note="With blanks between: 0.1 0.05 0.02" problem=${problems["sweep.densities"]}>${(rest) => html`<${ListInput} ...${rest} value=${sweep.densities} onChange=${set("densities")} />`}<//>
    <${Field} path="sweep.bits" label="Bits" note="1 to 8, 16 or 32: 8 4" problem=${problems["sweep.bits"]}>${(rest) => html`<${ListInput} ...${rest} value=${sweep.bits} onChange=${set("bits")} />`}<//></div>
    <p class="note" role="status">${trials} trials: every density with every number of bits. They share what they have in common.</p>`;
}

function Floor({ sweep, onChange, problems, attacks }) {
  const set = (name) => (value) => onChange({ ...sweep, [name]: value });
  return html`<p class="note">The smallest file whose robust accuracy holds the floor by the lower end of its interval, on validation images; confirmed on the test split at the end.</p><div class="fields">
    <${Field} path="sweep.floor" label="Robust accuracy, at least" note="A share: 0.5 is half of the images." problem=${problems["sweep.floor"]}>${(rest) => html`<${NumberInput} ...${rest} value=${sweep.floor} onChange=${set("floor")} />`}<//>
    <${Field} path="sweep.attack" label="Under">${(rest) => html`<select ...${rest} value=${sweep.attack} onChange=${(e) => set("attack")(e.target.value)}><option value="worst">the worst case of all attacks</option>${attacks.map((of) => html`<option key=${of.name} value=${of.name}>${words(of.name)}</option>`)}</select>`}<//>
    <${Field} path="sweep.trials" label="Trials at most" problem=${problems["sweep.trials"]}>${(rest) => html`<${NumberInput} ...${rest} value=${sweep.trials} onChange=${set("trials")} />`}<//></div>`;
}

function Threat({ spec, onChange, problems }) {
  const norm = spec.threat?.norm || "linf";
  const set = (next) => onChange("threat.epsilon", /^[\d.]+$/.test(String(next)) ? Number(next) : next);
  return html`<div class="field"><span class="label">Norm</span><${Choice} label="Norm" value=${norm} onChange=${(next) => onChange("threat.norm", next)} options=${[["linf", "l∞: each pixel"], ["l2", "l2: all together"]]} /></div>
    <${Field} path="threat.epsilon" label="Epsilon" note="How far an attacker may go, for images in [0, 1]; a fraction will do." problem=${problems["threat.epsilon"]}>${(rest) => html`<div class="slider"><${Choice} label="Usual ones" value=${String(spec.threat?.epsilon)} onChange=${set} options=${EPSILONS[norm].map((of) => [of, of])} />
      <${NumberInput} ...${rest} value=${spec.threat?.epsilon} onChange=${(v) => onChange("threat.epsilon", v)} /></div>`}<//>`;
}

function Preset({ path, label, spec, onChange, problems, schema }) {
  const part = path.split(".").reduce((at, name) => at?.properties?.[name], schema);
  if (!part?.enum) return null;
  return html`<${Field} path=${path} label=${label} note=${part.description} problem=${problems[path]}>${(rest) => html`<select ...${rest} value=${valueAt(spec, path) ?? part.default} onChange=${(e) => onChange(path, e.target.value === part.default ? undefined : e.target.value)}>
    ${part.enum.map((of) => html`<option key=${of} value=${of}>${of}</option>`)}</select>`}<//>`;
}
