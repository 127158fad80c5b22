// A job's report in place. It is the page that a job made of a stranger's files, so it stands in a
// frame that runs no script. Its styles stand inside it, which the policy of this page would refuse:
// they are taken out and given to the frame as a style sheet of its own.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { get } from "./api.js";
import { Failure, Loading } from "./ui.js";

const trusted = globalThis.trustedTypes?.createPolicy("report", { createHTML: (text) => text });
const STYLE = /<style[^>]*>([\s\S]*?)<\/style>/gi;

export function Report({ job }) {
  const [page, show] = useState(null);
  const [problem, fail] = useState(null);
  const ref = useRef();
  useEffect(() => { get(`jobs/${job.id}/report`, { accept: "text/html" }).then(show, fail); }, [job.id]);
  useEffect(() => {
    if (!page) return;
    const styles = [...page.matchAll(STYLE)].map(([, text]) => text).join("\n");
    const text = page.replace(STYLE, "");
    const frame = ref.current;
    frame.onload = () => {
      const inside = frame.contentDocument;
      const sheet = new frame.contentWindow.CSSStyleSheet();
      sheet.replaceSync(styles);
      inside.adoptedStyleSheets = [sheet];
    };
    frame.srcdoc = trusted ? trusted.createHTML(text) : text;
  }, [page]);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (!page) return html`<${Loading} />`;
  if (!/^\s*<!doctype html/i.test(page)) return html`<p class="note">This job made no page; its figures are in report.json below.</p>`;
  return html`<iframe class="report" ref=${ref} title="Report of the job" sandbox="allow-same-origin"></iframe>`;
}
