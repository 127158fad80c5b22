// Scales and their ticks, for charts that are drawn as SVG.

/** Map [low, high] to [from, to]; `invert` is the way back. */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return Object.assign((v) => from + ((v - low) / span) * (to - from), { invert: (p) => low + ((p - from) / (to - from)) * span, domain: [low, high] });
}

export function logarithmic([low, high], range) {
  const of = linear([Math.log(low), Math.log(high)], range);
  return Object.assign((v) => of(Math.log(v)), { invert: (p) => Math.exp(of.invert(p)), domain: [low, high] });
}

/** About `count` round numbers within the domain. */
export function ticks([low, high], count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** 1, 2 and 5 times powers of ten; fewer where they would be many. */
export function logTicks([low, high], most = 7) {
  for (const of of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      for (const n of of) if (n * 10 ** p >= low * 0.999 && n * 10 ** p <= high * 1.001) found.push(Number((n * 10 ** p).toPrecision(3)));
    }
    if (found.length <= most) return found;
  }
  return [low, high];
}

/** The domain of values, a little wider than they are. */
export function around(values, pad = 0.06) {
  const low = Math.min(...values), high = Math.max(...values);
  const by = (high - low || Math.abs(high) || 1) * pad;
  return [low - by, high + by];
}
