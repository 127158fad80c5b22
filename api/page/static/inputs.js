// The two files of a new job: dropped, looked into, or those of an earlier job.

import { html, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { get } from "./api.js";
import { Drop, Field } from "./fields.js";
import { bytes, count } from "./format.js";
import { fit, kindOf, lookIntoData, lookIntoModel, othersOf, weightsOf } from "./look.js";

const CLASSES = { num_classes: 10 };

/** What is to be sent, what of it cannot be right, and N where it can be told. */
export function useInputs(known, earlier) {
  const [model, setModel] = useState(earlier ? { id: earlier.model_id } : null);
  const [data, setData] = useState(earlier ? { id: earlier.dataset_id } : null);
  const [architecture, setArchitecture] = useState("");
  const [normal, setNormal] = useState({ mean: "", std: "" });
  useEffect(() => {
    if (!earlier) return;
    get(`models/${earlier.model_id}`).then((view) => { setModel({ id: view.id, view }); setArchitecture(view.architecture); }, () => setModel(null));
    get(`datasets/${earlier.dataset_id}`).then((view) => setData({ id: view.id, view }), () => setData(null));
  }, []);

  const take = async (file, kind = kindOf(file)) => {
    if (kind === "dataset") { setData({ file }); setData({ file, look: await lookIntoData(file, known.limits) }); return; }
    setModel({ file });
    const look = await lookIntoModel(file, known.limits);
    setModel({ file, look });
    if (look.format === "onnx") setArchitecture("onnx");
    else if (look.tensors) {
      const found = known.architectures.find((of) => of.tensors && fit(look.tensors, of).N !== undefined);
      if (found) setArchitecture(found.name);
    }
  };

  const document = known.architectures.find((of) => of.name === architecture);
  const fits = useMemo(() => (model?.look?.tensors && document?.tensors ? fit(model.look.tensors, document) : {}), [model, document]);
  const dimensions = fits.dimensions || model?.view?.dimensions || CLASSES;
  const N = fits.N ?? model?.view?.dense_weights ?? weightsOf(document, dimensions);
  const problems = {};
  if (!model) problems.model = { message: "a network is missing", missing: true };
  else if (model.look?.problem) problems.model = { message: model.look.problem };
  if (!data) problems.dataset = { message: "data are missing", missing: true };
  else if (data.look?.problem) problems.dataset = { message: data.look.problem };
  if (model && !model.id && !architecture) problems.architecture = { message: "say which network it is", missing: true };
  else if (fits.problem) problems.architecture = { message: fits.problem };
  const normalization = readNormal(normal, problems);
  return { model, data, setModel, setData, take, architecture, setArchitecture, normal, setNormal, normalization, N, ...othersOf(document, dimensions), problems, guessed: !fits.N && !model?.view?.dense_weights };
}

function readNormal({ mean, std }, problems) {
  if (!mean.trim() && !std.trim()) return null;
  const read = (text) => text.split(/[\s,]+/).filter(Boolean).map(Number);
  const both = { mean: read(mean), std: read(std) };
  if (!both.mean.length || both.mean.length !== both.std.length) problems.normalization = { message: "mean and deviation have a number for each channel" };
  else if ([...both.mean, ...both.std].some((n) => !Number.isFinite(n)) || both.std.some((n) => n <= 0)) problems.normalization = { message: "mean and deviation are numbers, deviations above 0" };
  return both;
}

const said = (input) => (input?.view ? `${input.view.filename}, ${bytes(input.view.bytes)}, sent before` : input?.file ? `${input.file.name}, ${bytes(input.file.size)}` : input?.id ? "that of the earlier job" : null);

export function Inputs({ inputs, known, problems }) {
  const { model, data, take, architecture } = inputs;
  const names = known.architectures.flatMap((of) => (of.variants ? of.variants.map((name) => `${of.name}/${name}`) : [of.name]));
  const own = names.filter((name) => !name.includes("/")), others = names.filter((name) => name.includes("/"));
  const document = known.architectures.find((of) => of.name === architecture);
  return html`<div class="drops">
      <${Drop} id="model" label="Network" accept=".safetensors,.pt,.pth,.ckpt,.bin,.onnx" note="A state dict (.safetensors, .pt) or an ONNX file" shown=${said(model)} problem=${problems.model} onFile=${(file) => take(file, kindOf(file) === "dataset" ? "dataset" : "model")} onClear=${() => inputs.setModel(null)} />
      <${Drop} id="dataset" label="Data" accept=".npz,.zip,.tar,.tgz,.gz,.parquet,.bz2,.xz" note="npz, class folders in a zip or tar, Parquet, idx, CIFAR" shown=${said(data)} problem=${problems.dataset} onFile=${(file) => take(file, kindOf(file) === "model" ? "model" : "dataset")} onClear=${() => inputs.setData(null)} />
    </div>
    ${!model?.id && html`<${Field} path="architecture" label="Architecture" problem=${problems.architecture}
      note=${document ? `${document.description || ""}${inputs.N ? ` ${count(inputs.N)} weights can be compressed${inputs.guessed ? ", for ten classes" : ""}.` : ""}` : "Found by itself where a safetensors file fits one."}>${(rest) => html`<select ...${rest} value=${architecture} onChange=${(e) => inputs.setArchitecture(e.target.value)}>
        <option value="">Choose …</option>${own.filter((name) => name !== "torchvision").map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        <optgroup label="torchvision">${others.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</optgroup></select>`}<//>
      <details class="group" open=${Boolean(problems.normalization)}><summary>Normalisation</summary><p class="note">What the network applies to images in [0, 1]; none by default. A number for each channel.</p><div class="fields">
        ${["mean", "std"].map((name) => html`<${Field} key=${name} path="normalization.${name}" label=${name === "mean" ? "Mean" : "Deviation"} problem=${problems.normalization}>${(rest) =>
          html`<input type="text" ...${rest} placeholder="0.485 0.456 0.406" value=${inputs.normal[name]} onInput=${(e) => inputs.setNormal({ ...inputs.normal, [name]: e.target.value })} />`}<//>`)}</div></details>`}`;
}
