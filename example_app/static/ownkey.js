/**
 * My own key: the recovery code that is shown once, restoring it here, replacing it.
 */

import { byId, openDialog, showView, showWords, toast } from "./dom.js";
import { inWords } from "./words.js";

/** There is a backup already, or the key was made in an earlier page: nothing to show. */
const NOTHING_TO_SHOW = ["backup_exists", "own_key_missing"];

const TITLES = {
  missing: "Your key is not in this browser",
  foreign: "Your new key is not in this browser",
};

export class OwnKey {
  /**
   * @param {import("/api/static/e2emsg.js").E2EClient} client
   * @param {{ready: () => Promise<void>, logout: () => void, block: (isBlocked: boolean) => void}} listener
   */
  constructor(client, listener) {
    this.client = client;
    this.listener = listener;
    byId("restore-form").onsubmit = (event) => this.#restore(event);
    byId("restore-logout").onclick = listener.logout;
    byId("restore-back").onclick = () => showView("chat");
    byId("new-key").onclick = () => this.#replace();
    byId("own-restore").onclick = () => this.#ask("foreign");
    byId("own-replace").onclick = () => this.#replace();
    byId("code-dialog").oncancel = (event) => event.preventDefault(); // Escape must not lose the code
    byId("code-done").onclick = () => this.#forgetCode();
    byId("copy-code").onclick = () => this.#copy();
  }

  /** Go on to the chat if the key is here; else ask for the recovery code. */
  async begin() {
    const state = await this.client.keyState();
    if (state === "missing") {
      this.#ask(state);
      return;
    }
    this.warn(state === "foreign");
    await this.listener.ready();
    if (state === "ready") await this.#backUp({});
  }

  /** Another key of mine is in the directory: nothing is sent from here. */
  warn(isForeign) {
    byId("own-key").hidden = !isForeign;
    this.listener.block(isForeign);
  }

  /** @param {"missing" | "foreign"} state */
  #ask(state) {
    showWords("restore-error", null);
    byId("restore-title").textContent = TITLES[state];
    // Who has an older key here goes back, and uses that one instead of making yet another.
    byId("restore-back").hidden = state === "missing";
    byId("restore-logout").hidden = byId("no-code").hidden = state === "foreign";
    showView("restore");
    byId("code").value = "";
    byId("code").focus();
  }

  async #restore(event) {
    event.preventDefault();
    try {
      const state = await this.client.restore(byId("code").value);
      byId("code").value = "";
      this.warn(state === "foreign");
      await this.listener.ready();
    } catch (error) {
      showWords("restore-error", inWords(error));
      byId("code").focus();
    }
  }

  async #replace() {
    try {
      await this.client.replaceKey();
      this.warn(false);
      await this.listener.ready();
      await this.#backUp({ replace: true });
    } catch (error) {
      if (byId("restore").hidden) toast(inWords(error));
      else showWords("restore-error", inWords(error));
    }
  }

  /** Only the page that has made a key can back it up, so it is done at once. */
  async #backUp(options) {
    try {
      byId("shown-code").textContent = await this.client.makeBackup(options);
      openDialog("code-dialog");
    } catch (error) {
      if (!NOTHING_TO_SHOW.includes(error.code)) toast(`There is no recovery code yet. ${inWords(error)}`);
      else if (options.replace) toast("This key has no recovery code any more: it lives in this browser only.");
    }
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(byId("shown-code").textContent);
      byId("copy-code").textContent = "Copied";
    } catch {
      toast("This browser does not let the page copy. Select the code and copy it yourself.");
    }
  }

  #forgetCode() {
    byId("shown-code").textContent = "";
    byId("copy-code").textContent = "Copy";
    byId("code-dialog").close();
  }
}
