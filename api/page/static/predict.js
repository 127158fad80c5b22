// What a file will weigh, as an estimate, and what a job will take, by what earlier ones took.

const entropy = (d) => (d <= 0 || d >= 1 ? 0 : -(d * Math.log2(d) + (1 - d) * Math.log2(1 - d)));
// By the files of docs/results.md: layers differ in density, and codes are not used alike, so both
// take less than they would if all were the same.
const POSITIONS = 0.68, CODES = 0.92;

/** k, the non-zeros that a target leaves of N weights; null where only the job finds out. */
export function nonzerosOf(target, N) {
  if (target.k) return target.k;
  if (target.density) return Math.round(target.density * N);
  // Bits of the non-zeros over those of the dense weights; codebooks are left out here.
  if (target.nominal_ratio) return Math.min(N, Math.floor((target.nominal_ratio * 32 * N) / target.bits));
  return null;
}

/**
 * The file's bytes: where the non-zeros are (N H(k/N) bits at most), what they are (k bits), their
 * codebooks, and what is no weight. {bytes, k}, or {most} where the target itself says how large.
 */
export function fileBytes(target, N, { small, layers }) {
  if (!target?.bits || !N) return null;
  if (target.max_bytes) return { most: target.max_bytes };
  const k = nonzerosOf(target, N);
  if (!k || k > N) return null;
  const isCode = target.bits <= 8;
  const positions = (POSITIONS * N * entropy(k / N)) / 8;
  const values = ((isCode ? CODES : 1) * k * target.bits) / 8;
  const each = (target.small_tensor_bits || (target.bits === 32 ? 32 : 16)) / 8;
  const codebooks = isCode ? layers * Math.min(2 ** target.bits, k / layers) * each : 0;
  return { bytes: Math.round(positions + values + codebooks + small * each + 200), k };
}

/** What jobs like it took: {low, middle, high, count}, or null; `jobs` have `headline.seconds`. */
export function takes(jobs) {
  const seconds = jobs.map((job) => job.headline?.seconds).filter((s) => s > 0).sort((a, b) => a - b);
  if (!seconds.length) return null;
  return { low: seconds[0], middle: seconds[Math.floor(seconds.length / 2)], high: seconds.at(-1), count: seconds.length };
}
