// Sends a new job or sweep: first the files, in pieces that can be sent again, then what to do.

import { newOnceKey, post, upload } from "./api.js";

// What was sent is not sent again when what follows is refused and sent once more.
const sent = new WeakMap();

async function put(input, path, fields, text, onProgress, from) {
  if (input.id) return input.id;
  const known = sent.get(input.file);
  const wanted = JSON.stringify(fields);
  if (known?.wanted === wanted) return known.id;
  const upload_id = await upload(input.file, { onProgress: (share) => onProgress({ text: `Sending ${text}`, share: from + 0.5 * share }) });
  onProgress({ text: `The service looks into ${text}`, share: from + 0.5 });
  const { id } = await post(path, { upload_id, ...fields });
  sent.set(input.file, { wanted, id });
  return id;
}

let before = { body: "", key: "" };

export async function send({ spec, name, mode, sweep, inputs, onProgress }) {
  const { model, data, architecture, normalization } = inputs;
  const model_id = await put(model, "models", normalization ? { architecture, normalization } : { architecture }, "the network", onProgress, 0);
  const dataset_id = await put(data, "datasets", {}, "the data", onProgress, 0.5);
  onProgress({ text: "Asking for it", share: 1 });
  const head = { model_id, dataset_id, ...(name.trim() ? { name: name.trim() } : {}) };
  const [path, body] = mode === "one" ? ["jobs", { ...head, ...spec }] : ["sweeps", { ...head, ...sweepOf(spec, mode, sweep) }];
  // A click that went astray does not do the same twice.
  const text = JSON.stringify([path, body]);
  if (before.body !== text) before = { body: text, key: newOnceKey() };
  const made = await post(path, body, { onceKey: before.key });
  before = { body: "", key: "" };
  return made;
}

function sweepOf(spec, mode, sweep) {
  const { density, nominal_ratio, max_bytes, k, macs, bits, ...target } = spec.target || {};
  const base = { ...spec };
  if (Object.keys(target).length) base.target = target;
  else delete base.target;
  if (mode === "grid") return { spec: base, grid: { densities: sweep.densities, bits: sweep.bits } };
  return { spec: base, goal: { robust_accuracy: sweep.floor, attack: sweep.attack }, minimise: "file_bytes", trials: sweep.trials ?? 8 };
}
