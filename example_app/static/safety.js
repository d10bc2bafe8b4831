/**
 * Keys of contacts: the safety number to compare, and the warning when a key has changed.
 */

import { qrImage } from "./qr.js";
import { byId, openDialog, showWords } from "./dom.js";
import { inWords } from "./words.js";

export class Safety {
  #contact = null;
  #number = null;

  /**
   * @param {import("/api/static/e2emsg.js").E2EClient} client
   * @param {import("./people.js").People} people
   * @param {(isBlocked: boolean) => void} block
   */
  constructor(client, people, block) {
    this.client = client;
    this.people = people;
    this.block = block;
    byId("safety-button").onclick = byId("key-change-button").onclick = () => this.#show();
    byId("safety-close").onclick = () => byId("safety-dialog").close();
    byId("accept").onclick = () => this.#accept();
  }

  /** Another conversation is open, or none. */
  open(contact) {
    this.#contact = contact;
    byId("safety-button").hidden = contact === this.client.userId;
    this.#warn(false);
  }

  /** Is the contact's key still the one that was accepted? */
  async check() {
    const contact = this.#contact;
    if (contact === null || contact === this.client.userId) return;
    const number = await this.client.safetyNumber(contact).catch(() => null);
    if (contact === this.#contact) this.#warn(Boolean(number?.isChanged));
  }

  /** The client has learned of another key. */
  changed({ contact }) {
    if (contact === this.#contact) this.#warn(true);
  }

  #warn(isChanged) {
    byId("key-change").hidden = !isChanged;
    if (isChanged) {
      const name = this.people.nameOf(this.#contact);
      byId("key-change-text").replaceChildren(
        `The key of ${name} has changed. They may use a new browser, or somebody may be pretending to ` +
          "be them. Nothing is sent until you accept the new key.",
      );
    }
    const isWriting = byId("composer").contains(document.activeElement);
    this.block(isChanged);
    if (isChanged && isWriting) byId("key-change-button").focus();
  }

  async #show() {
    const name = this.people.nameOf(this.#contact);
    showWords("safety-error", null);
    try {
      this.#number = await this.client.safetyNumber(this.#contact);
    } catch (error) {
      this.#number = null;
      showWords("safety-error", inWords(error));
    }
    const { groups = "", qrText, isChanged } = this.#number ?? {};
    byId("safety-title").textContent = `Safety number with ${name}`;
    byId("safety-text").textContent = isChanged
      ? `This is the number of the new key. Compare it with ${name}, not through this chat: in person or ` +
        "on the phone. Accept the key only if both of you see the same."
      : `Compare it with ${name}, not through this chat: in person or on the phone. If both of you see the ` +
        "same, nobody is in between.";
    byId("digits").textContent = groups;
    byId("qr").replaceChildren(...(qrText ? [qrImage(qrText, "The safety number as a QR code")] : []));
    byId("accept").hidden = !isChanged;
    openDialog("safety-dialog");
  }

  async #accept() {
    try {
      await this.client.acceptKey(this.#contact, this.#number.digits);
      byId("safety-dialog").close();
      await this.check();
      byId("text").focus();
    } catch (error) {
      showWords("safety-error", inWords(error));
    }
  }
}
