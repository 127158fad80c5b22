// What would repeat a job: as curl, as the command and in Python.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { address, get, session } from "./api.js";
import { Choice, Copy } from "./ui.js";

const FLAGS = {
  method: "--method", "target.density": "--density", "target.k": "--k", "target.nominal_ratio": "--nominal-ratio",
  "target.max_bytes": "--max-bytes", "target.macs": "--macs", "target.bits": "--bits", "target.structure": "--structure",
  "threat.norm": "--norm", "threat.epsilon": "--epsilon", "training.preset": "--preset", seed: "--seed",
};

const quoted = (text) => (/^[\w./@:=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** Every field of a spec by its dotted path. */
export function* fields(spec, prefix = "") {
  for (const [name, value] of Object.entries(spec)) {
    if (value && typeof value === "object" && !Array.isArray(value)) yield* fields(value, `${prefix}${name}.`);
    else yield [prefix + name, value];
  }
}

function python(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((v) => python(v)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v, `${indent}    `)}`);
  const flat = `{${inner.join(", ")}}`;
  return flat.length + indent.length < 76 ? flat : `{\n${inner.map((line) => `${indent}    ${line},\n`).join("")}${indent}}`;
}

function commands(job, model, dataset) {
  const server = address("").href.replace(/\/$/, "");
  const { spec } = job;
  const architecture = model?.architecture || "ARCHITECTURE";
  const file = model?.filename || "model.safetensors";
  const data = dataset?.filename || "data.npz";
  const body = { model_id: job.model_id, dataset_id: job.dataset_id, ...(job.name ? { name: job.name } : {}), ...spec };
  const auth = session.key ? ' \\\n  -H "Authorization: Bearer $ATMC_API_KEY"' : "";
  const curl = `curl ${server}/jobs${auth} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body, null, 2))}`;
  const flags = [...fields(spec)].map(([path, value]) =>
    FLAGS[path] ? `${FLAGS[path]} ${quoted(String(value))}` : `--set ${quoted(`${path}=${JSON.stringify(value)}`)}`);
  const normal = model?.normalization ? [`--mean ${model.normalization.mean.join(",")}`, `--std ${model.normalization.std.join(",")}`] : [];
  const command = [`ATMC_SERVER=${server} atmc submit --model ${quoted(file)} --architecture ${quoted(architecture)}`, `--data ${quoted(data)}`, ...normal, ...flags].join(" \\\n  ");
  const code = `from atmc_client import Client

with Client(${JSON.stringify(server)}) as client:
    spec = ${python(spec, "    ")}
    job = client.submit(${JSON.stringify(file)}, ${JSON.stringify(architecture)}, ${JSON.stringify(data)}, spec${model?.normalization ? `,\n                        normalization=${python(model.normalization)}` : ""})
    job = client.wait(job["id"])
    client.download(job["id"], "smaller")`;
  return { curl, cli: command, python: code };
}

export function Repeat({ job }) {
  const [kind, choose] = useState("cli");
  const [inputs, know] = useState([]);
  useEffect(() => {
    const none = () => null;
    Promise.all([get(job.links.model).catch(none), get(job.links.dataset).catch(none)]).then(know);
  }, [job.id]);
  const text = commands(job, ...inputs)[kind];
  return html`<section class="card repeat"><header><h2>Do it again</h2><span class="gap"></span>
    <${Choice} label="As" value=${kind} onChange=${choose} options=${[["cli", "Command"], ["curl", "curl"], ["python", "Python"]]} />
    <${Copy} text=${text} label="Copy the text" /></header>
    <pre tabindex="0" aria-label="What repeats the job"><code>${text}</code></pre>
    <p class="note">${kind === "curl" ? "On the files that are there already." : `With the same files, ${inputs[0]?.filename || "the model"} and ${inputs[1]?.filename || "the data"}.`}</p>
  </section>`;
}
