// A key is asked for once and kept as long as the tab is open.

import { html, useState } from "./vendor/preact-htm.js";
import { get, session } from "./api.js";
import { Failure, Heading } from "./ui.js";

export function SignIn({ known, denied, onSigned }) {
  const [key, type] = useState("");
  const [busy, work] = useState(false);
  const [problem, fail] = useState(known.problem || denied);
  const sign = async (event) => {
    event.preventDefault();
    work(true);
    session.key = key.trim().replace(/^Bearer\s+/i, "");
    try {
      await get("jobs?limit=1");
      onSigned();
    } catch (refusal) {
      session.key = null;
      fail(refusal);
      work(false);
    }
  };
  const issuer = known.oidc_issuer;
  return html`<section class="signin">
    <${Heading} title="Sign in" />
    <p class="lead">${issuer
      ? html`Paste a token of <a href=${issuer} rel="noreferrer">${new URL(issuer).host}</a>, your sign-in provider, or a key of this service.`
      : "This service asks who calls. Paste a key: your operator makes one."}</p>
    <form onSubmit=${sign}>
      <label for="key">${issuer ? "Token or key" : "Key"}</label>
      <input id="key" type="password" autocomplete="off" spellcheck=${false} placeholder=${issuer ? "eyJ… or atmc_…" : "atmc_…"}
        required value=${key} onInput=${(e) => type(e.target.value)} aria-describedby="key-note" />
      <p id="key-note" class="note">It is kept in this tab until you sign out or close it, and sent to this service only.</p>
      ${problem && html`<${Failure} problem=${problem} />`}
      <button class="first" disabled=${busy || !key.trim()}>${busy ? "Looking …" : "Sign in"}</button>
    </form>
    <details><summary>Where do I get ${issuer ? "one" : "a key"}?</summary>
      ${issuer && html`<p>A token (JWT) is what your provider's own command or page gives you for this service's audience. It names your tenant and scopes, and ends by itself.</p>`}
      <p>Who holds the admin's key makes others:</p>
      <pre><code>atmc keys create --tenant TEAM --scopes jobs:read,jobs:write --expires 90d</code></pre>
    </details>
  </section>`;
}
