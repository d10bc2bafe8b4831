/**
 * "What the server sees": the rows of the open conversation as the server's history gives them.
 */

import { byId, make, showWords } from "./dom.js";
import { inWords } from "./words.js";

const ROWS = 20;
const SOON_MS = 300;

export class ServerView {
  #contact = null;
  #timer = 0;

  /** @param {import("./account.js").Account} account */
  constructor(account) {
    this.account = account;
    byId("server-button").onclick = () => (byId("server").hidden ? this.#show() : this.close());
    byId("server-close").onclick = () => this.close();
    byId("server").onkeydown = (event) => event.key === "Escape" && this.close();
  }

  /** Another conversation is open. */
  open(contact) {
    this.#contact = contact;
    if (contact === null) this.#hide();
    else this.refresh();
  }

  /** Something has changed in the conversation. */
  refresh() {
    if (byId("server").hidden) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), SOON_MS);
  }

  close() {
    this.#hide();
    byId("server-button").focus();
  }

  #hide() {
    byId("server").hidden = true;
    byId("server-button").setAttribute("aria-expanded", "false");
  }

  #show() {
    byId("server").hidden = false;
    byId("server-button").setAttribute("aria-expanded", "true");
    byId("server-title").focus();
    void this.#load();
  }

  async #load() {
    const contact = this.#contact;
    try {
      const page = await this.account.get(`messages/${encodeURIComponent(contact)}?limit=${ROWS}`);
      if (contact !== this.#contact) return;
      showWords("server-error", page.messages.length ? null : "Nothing yet.");
      byId("server-rows").replaceChildren(...page.messages.map(rowOf));
    } catch (error) {
      showWords("server-error", inWords(error));
    }
  }
}

/** One stored message, every member of it, in the server's own words. */
function rowOf(message) {
  const members = Object.entries(message).flatMap(([name, value]) => [
    make("dt", {}, name),
    make("dd", { class: name === "encrypted_content" ? "sealed" : null }, String(value)),
  ]);
  return make("li", {}, make("dl", {}, ...members));
}
