// Rows that are drawn only where they are seen: a list of thousands costs what fits on a screen.

import { useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";

const SPARE = 12;
const wide = matchMedia("(min-width: 900px)");
const HEIGHTS = { true: 58, false: 144 };

/** Which of `count` rows are on the screen, as [start, end), while the window scrolls. */
export function useWindowed(count) {
  const ref = useRef();
  const [isWide, setWide] = useState(wide.matches);
  const [range, setRange] = useState([0, 40]);
  const rowHeight = HEIGHTS[isWide];
  const look = () => {
    if (!ref.current) return;
    const top = -ref.current.getBoundingClientRect().top;
    // In steps, so that most movements draw nothing.
    const start = Math.max(0, Math.floor(top / rowHeight / 4) * 4 - SPARE);
    const end = Math.ceil((top + innerHeight) / rowHeight / 4) * 4 + SPARE;
    setRange((before) => (before[0] === start && before[1] === end ? before : [start, end]));
  };
  useEffect(() => {
    const turned = () => setWide(wide.matches);
    wide.addEventListener("change", turned);
    return () => wide.removeEventListener("change", turned);
  }, []);
  useLayoutEffect(() => {
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => { removeEventListener("scroll", look); removeEventListener("resize", look); };
  }, [rowHeight, count > 0]);
  return { ref, start: range[0], end: Math.min(count, range[1]), height: count * rowHeight, rowHeight };
}
