// Looks into files before they are sent: what a file is, and what of it cannot be right. Only headers
// are read, as the service does; whatever this cannot tell, the service says.

const HEADER_MOST = 16 * 1024 * 1024;
const MODELS = /\.(safetensors|pt|pth|ckpt|bin|onnx)$/i;
const DATA = /\.(npz|zip|tar|tgz|gz|parquet|bz2|xz)$/i;

export const kindOf = (file) => (MODELS.test(file.name) ? "model" : DATA.test(file.name) ? "dataset" : null);

const bytesOf = async (file, start, end) => new DataView(await file.slice(start, end).arrayBuffer());
const isZip = (view) => view.byteLength > 3 && view.getUint32(0) === 0x504b0304;

/** {format, tensors?, problem?} of a network's file. */
export async function lookIntoModel(file, limits) {
  const size = tooLarge(file, limits.max_model_bytes);
  if (size) return size;
  const start = await bytesOf(file, 0, 8);
  if (/\.onnx$/i.test(file.name)) return { format: "onnx" };
  if (isZip(start)) return { format: "torch" };
  if (/\.safetensors$/i.test(file.name)) return safetensors(file, start);
  return { format: "torch" };
}

async function safetensors(file, start) {
  const cut = { format: "safetensors", problem: "This is no safetensors file, or it was cut off: its header cannot be read. Save it again." };
  if (start.byteLength < 8) return cut;
  const length = Number(start.getBigUint64(0, true));
  if (length > HEADER_MOST || 8 + length > file.size) return cut;
  try {
    const header = JSON.parse(await file.slice(8, 8 + length).text());
    delete header.__metadata__;
    const ends = Object.values(header).map((tensor) => tensor.data_offsets[1]);
    if (Math.max(0, ...ends) !== file.size - 8 - length) return { ...cut, problem: "The file is not whole: its header names more or fewer bytes than there are. Copy it again." };
    return { format: "safetensors", tensors: new Map(Object.entries(header).map(([name, tensor]) => [name, tensor.shape])) };
  } catch {
    return cut;
  }
}

/** {format, problem?} of a data set's file. */
export async function lookIntoData(file, limits) {
  const size = tooLarge(file, limits.max_dataset_bytes);
  if (size) return size;
  const start = await bytesOf(file, 0, 4);
  if (/\.parquet$/i.test(file.name) || (start.byteLength === 4 && start.getUint32(0) === 0x50415231)) return { format: "Parquet" };
  if (!/\.npz$/i.test(file.name)) return { format: /\.zip$/i.test(file.name) ? "zip" : "tar" };
  if (!isZip(start)) return { format: "npz", problem: "This is no .npz: numpy.savez_compressed writes one." };
  const names = await zipNames(file);
  const missing = names && ["x_train", "y_train", "x_test", "y_test"].filter((name) => !names.has(`${name}.npy`));
  // Without a test split the service cuts one.
  if (missing?.some((name) => name.endsWith("train"))) {
    return { format: "npz", problem: `The file has no ${missing.join(", ")}: it takes x_train, y_train, x_test, y_test (images uint8 [N, H, W, C] or [N, H, W]). It has ${[...names].join(", ") || "nothing"}.` };
  }
  return { format: "npz" };
}

function tooLarge(file, most) {
  if (file.size === 0) return { format: "", problem: "The file is empty." };
  return most && file.size > most ? { format: "", problem: `The file has ${Math.ceil(file.size / 1e6)} MB; this service takes ${Math.floor(most / 1e6)}.` } : null;
}

/** The names in a zip's central directory, null where it is not found in the last 64 KiB. */
async function zipNames(file) {
  const from = Math.max(0, file.size - 65557);
  const tail = await bytesOf(file, from, file.size);
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) return null;
  const start = tail.getUint32(end + 16, true), length = tail.getUint32(end + 12, true);
  if (start === 0xffffffff || length > HEADER_MOST) return null;
  const list = await bytesOf(file, start, start + length);
  const names = new Set();
  for (let at = 0; at + 46 <= list.byteLength && list.getUint32(at, true) === 0x02014b50; ) {
    const name = list.getUint16(at + 28, true);
    names.add(new TextDecoder().decode(new Uint8Array(list.buffer, at + 46, name)));
    at += 46 + name + list.getUint16(at + 30, true) + list.getUint16(at + 32, true);
  }
  return names;
}

const PREFIX = /^(module|_orig_mod|model|net|network|backbone)\./;
const stripped = (tensors) => new Map([...tensors].map(([name, shape]) => {
  while (PREFIX.test(name)) name = name.replace(PREFIX, "");
  return [name, shape];
}));

/** Hold tensors against an architecture: {N, dimensions}, or {problem} with the first that differs. */
export function fit(tensors, architecture) {
  const dimensions = {};
  const found = tensors.has(Object.keys(architecture.tensors)[0]) ? tensors : stripped(tensors);
  for (const [name, { shape, optional }] of Object.entries(architecture.tensors)) {
    const has = found.get(name);
    if (!has) {
      if (optional) continue;
      return { problem: `The file has no ${name}, which ${architecture.name} has.` };
    }
    const wanted = shape.map((n) => (typeof n === "string" ? (dimensions[n] ??= has[shape.indexOf(n)]) : n));
    if (wanted.length !== has.length || wanted.some((n, i) => n !== has[i])) {
      return { problem: `${name} is [${has.join(", ")}] in the file and [${wanted.join(", ")}] in ${architecture.name}.` };
    }
  }
  const extra = [...found.keys()].find((name) => !(name in architecture.tensors));
  if (extra) return { problem: `The file has ${extra}, which ${architecture.name} has not.` };
  return { N: weightsOf(architecture, dimensions), dimensions };
}

/** N, the dense weights that can be compressed, where the architecture tells all sizes. */
export function weightsOf(architecture, dimensions = {}) {
  if (!architecture?.tensors) return null;
  const sizes = architecture.compressible.map((name) => architecture.tensors[name].shape.reduce((n, of) => n * (typeof of === "string" ? dimensions[of] : of), 1));
  const sum = sizes.reduce((a, b) => a + b, 0);
  return Number.isFinite(sum) ? sum : null;
}

/** Values that are no weights: biases and norms, and how many tensors are compressed. */
export function othersOf(architecture, dimensions = {}) {
  if (!architecture?.tensors) return { small: 0, layers: 8 };
  const compressible = new Set(architecture.compressible);
  let small = 0;
  for (const [name, { shape, optional }] of Object.entries(architecture.tensors)) {
    if (!compressible.has(name) && !optional) small += shape.reduce((n, of) => n * (typeof of === "string" ? dimensions[of] || 10 : of), 1);
  }
  return { small, layers: compressible.size };
}
