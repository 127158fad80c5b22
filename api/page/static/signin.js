// A key is asked for once, or the provider is, and what comes of it is kept as long as the tab is open.

import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Problem, get, post, session } from "./api.js";
import { Failure, Heading } from "./ui.js";

const KEPT = "atmc-sign-in";
const home = () => `${location.origin}${location.pathname}`;
const base64url = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const chance = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** Go to the provider, which sends the browser back with a code (RFC 7636: only this tab can use it). */
async function leave() {
  if (!crypto.subtle) throw new Problem(0, { detail: "A browser signs in by a provider only over https, or on the service's own machine. Paste a token or a key." });
  const { authorization_endpoint, client_id, scope } = await get("page/sign-in");
  const kept = { verifier: chance(), state: chance(), hash: location.hash };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const there = new URL(authorization_endpoint);
  const asked = {
    response_type: "code", client_id, scope, redirect_uri: home(), state: kept.state,
    code_challenge: base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(kept.verifier))), code_challenge_method: "S256",
  };
  Object.entries(asked).forEach((pair) => there.searchParams.set(...pair));
  location.assign(there);
}

/** Whether the provider has just sent the browser back. */
export const isBack = () => ["code", "error"].some((name) => new URLSearchParams(location.search).has(name));

/** Take what the provider sent the browser back with, and make a token of it. */
async function comeBack() {
  const said = new URLSearchParams(location.search);
  const kept = JSON.parse(sessionStorage.getItem(KEPT) || "{}");
  sessionStorage.removeItem(KEPT);
  // A code is for one use, and for nobody's history.
  history.replaceState(null, "", home());
  if (kept.hash) location.hash = kept.hash;
  if (said.has("error")) throw new Problem(0, { detail: `The provider refuses: ${said.get("error_description") || said.get("error")}.` });
  if (!kept.state || said.get("state") !== kept.state) throw new Problem(0, { detail: "This answer is to no question of this tab. Sign in again." });
  session.key = (await post("page/sign-in", { code: said.get("code"), verifier: kept.verifier, redirect_uri: home() })).token;
}

export function SignIn({ known, denied, onSigned }) {
  const [key, type] = useState("");
  const [busy, work] = useState(false);
  const [problem, fail] = useState(known.problem || denied);
  const trying = async (what) => {
    work(true);
    try {
      await what();
      return true;
    } catch (refusal) {
      fail(refusal);
      work(false);
      return false;
    }
  };
  useEffect(() => { if (isBack()) trying(comeBack).then((done) => done && onSigned()); }, []);
  const sign = async (event) => {
    event.preventDefault();
    session.key = key.trim().replace(/^Bearer\s+/i, "");
    if (await trying(() => get("jobs?limit=1"))) onSigned();
    else session.key = null;
  };
  const issuer = known.oidc_issuer;
  return html`<section class="signin">
    <${Heading} title="Sign in" />
    ${known.signs_in_there && html`<p><button type="button" class="first send" disabled=${busy} onClick=${() => trying(leave)}>${busy ? "Signing in …" : `Sign in with ${new URL(issuer).host}`}</button></p>`}
    <p class="lead">${known.signs_in_there ? "Or paste a token of it, or a key of this service." : issuer
      ? html`Paste a token of <a href=${issuer} rel="noreferrer">${new URL(issuer).host}</a>, your sign-in provider, or a key of this service.`
      : "This service asks who calls. Paste a key: your operator makes one."}</p>
    <form onSubmit=${sign}>
      <label for="key">${issuer ? "Token or key" : "Key"}</label>
      <input id="key" type="password" autocomplete="off" spellcheck=${false} placeholder=${issuer ? "eyJ… or atmc_…" : "atmc_…"}
        required value=${key} onInput=${(e) => type(e.target.value)} aria-describedby="key-note" />
      <p id="key-note" class="note">It is kept in this tab until you sign out or close it, and sent to this service only.</p>
      ${problem && html`<${Failure} problem=${problem} />`}
      <button class=${known.signs_in_there ? "" : "first"} disabled=${busy || !key.trim()}>${busy ? "Looking …" : "Sign in"}</button>
    </form>
    <details><summary>Where do I get ${issuer ? "one" : "a key"}?</summary>
      ${issuer && html`<p>A token (JWT) is what your provider's own command or page gives you for this service's audience. It names your tenant and scopes, and ends by itself.</p>`}
      <p>Who holds the admin's key makes others:</p>
      <pre><code>atmc keys create --tenant TEAM --scopes jobs:read,jobs:write --expires 90d</code></pre>
    </details>
  </section>`;
}
