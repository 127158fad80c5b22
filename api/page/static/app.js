// The frame of the page: who looks, where they are, light or dark.

import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { get, session } from "./api.js";
import { Jobs } from "./jobs.js";
import { SignIn } from "./signin.js";
import { Announcer, Heading, Loading } from "./ui.js";

// Views that are not the first are loaded when they are first opened.
const VIEWS = [
  [/^jobs$/, () => Jobs],
  [/^jobs\/([^/]+)$/, () => import("./job.js").then((m) => m.JobView)],
  [/^compare\/([^/]+)\/([^/]+)$/, () => import("./compare.js").then((m) => m.Compare)],
  [/^new(?:\/([^/]+))?$/, () => import("./new.js").then((m) => m.NewJob)],
  [/^sweeps$/, () => import("./sweeps.js").then((m) => m.Sweeps)],
  [/^sweeps\/([^/]+)$/, () => import("./sweep.js").then((m) => m.SweepView)],
];

const here = () => location.hash.replace(/^#\/?/, "") || "jobs";

function useRoute() {
  const [path, go] = useState(here);
  useEffect(() => {
    const moved = () => {
      document.body.dataset.moved = "yes";
      go(here());
      scrollTo(0, 0);
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return path;
}

function View({ path }) {
  const [view, show] = useState(null);
  useEffect(() => {
    let gone = false;
    const found = VIEWS.map(([form, load]) => [form.exec(path), load]).find(([match]) => match);
    if (!found) return show({ path, of: Lost, given: [] });
    const [match, load] = found;
    Promise.resolve(load()).then((of) => gone || show({ path, of, given: match.slice(1) }), () => gone || show({ path, of: Old, given: [] }));
    return () => { gone = true; };
  }, [path]);
  if (!view || view.path !== path) return html`<${Loading} />`;
  return html`<${view.of} key=${path} ids=${view.given} />`;
}

const Lost = () => html`<section class="narrow"><${Heading} title="There is nothing here" />
  <p>The address names no view. <a href="#/jobs">All jobs</a></p></section>`;

// The service was brought up to date while the page was open, or is away.
const Old = () => html`<section class="narrow"><${Heading} title="This part cannot be loaded" />
  <p>The service may be of a newer version than this page. <button type="button" onClick=${() => location.reload()}>Load it anew</button></p></section>`;

const THEMES = ["auto", "light", "dark"];
function useTheme() {
  const [theme, choose] = useState(() => localStorage.getItem("atmc-theme") || "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("atmc-theme", theme);
  }, [theme]);
  return [theme, () => choose(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

const NAV = [["jobs", "Jobs"], ["sweeps", "Sweeps"]];
const THEME_GLYPH = { auto: "◐", light: "○", dark: "●" };

function Top({ path, signed, onSignOut }) {
  const [theme, next] = useTheme();
  const at = path.split("/")[0].replace("compare", "jobs");
  return html`<header class="top">
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>Skip to content</a>
    <a class="brand" href="#/jobs" aria-label="ATMC, all jobs"><span class="mark" aria-hidden="true"></span>ATMC</a>
    ${signed && html`<nav aria-label="Views">${NAV.map(([to, text]) =>
      html`<a key=${to} href="#/${to}" aria-current=${at === to ? "page" : undefined}>${text}</a>`)}</nav>`}
    <span class="gap"></span>
    <a class="quiet wide" href="docs">API</a>
    <button type="button" class="quiet icon" title="Light or dark" aria-label="Colours: ${theme}" onClick=${next}>${THEME_GLYPH[theme]}</button>
    ${signed && session.key && html`<button type="button" class="quiet" onClick=${onSignOut}>Sign out</button>`}
    ${signed && html`<a class="button first" href="#/new">New job</a>`}
  </header>`;
}

function App() {
  const path = useRoute();
  const [known, know] = useState(null);
  const [denied, deny] = useState(null);
  const [signed, sign] = useState(Boolean(session.key));
  useEffect(() => {
    session.onDenied = (problem) => {
      session.key = null;
      deny(problem);
      sign(false);
    };
    get("page.json").then(know, (problem) => know({ problem }));
  }, []);
  const open = known && (signed || known.asks_who_calls === false);
  const out = () => { session.key = null; deny(null); sign(false); };
  return html`<${Top} path=${path} signed=${open} onSignOut=${out} />
    <main id="main" tabindex="-1">
      ${!known ? html`<${Loading} />`
        : open ? html`<${View} path=${path} />`
        : html`<${SignIn} known=${known} denied=${denied} onSigned=${() => { deny(null); sign(true); }} />`}
    </main>
    <${Announcer} />`;
}

const page = document.getElementById("page");
page.replaceChildren();
render(html`<${App} />`, page);
