/**
 * My own key on this device: made, published, backed up, restored.
 *
 * The bytes of a private key exist while it is made or restored. They are sealed at once under a
 * fresh recovery code, which this object keeps in memory until `backUp()` hands it out; after the
 * page is gone, a backup can be made again only from the old one.
 */

import { codeOf, newSecret, openBackup, readCode, sealBackup } from "./backup.js";
import { fromBase64url, same, toBase64url } from "./bytes.js";
import { BadCode, E2EError, NoKey, Refused } from "./errors.js";
import { create, fromPrivateBytes } from "./keys.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./contacts.js").Contacts} Contacts */
/** @typedef {import("./store.js").OwnKey} OwnKey */

/** @typedef {"ready" | "missing" | "foreign"} KeyState */

export class Identity {
  /** @type {{code: string, blob: Bytes, kid: string} | null} */
  #sealed = null;

  /** @param {Contacts} contacts */
  constructor(contacts) {
    this.contacts = contacts;
    this.store = contacts.store;
    this.rest = contacts.rest;
    this.me = contacts.me;
  }

  /** Make a key where neither this device nor the directory has one. Only under the keys lock. */
  async ensure() {
    if ((await this.store.ownKeys()).length) return;
    if (await this.contacts.published(this.me)) {
      await this.store.set("keyState", "missing");
      return;
    }
    await this.#make();
  }

  /**
   * Compare my key with the directory's, and publish it where there is none.
   *
   * @returns {Promise<KeyState>} `missing`: there is none on this device; `foreign`: the
   *     directory has another one
   */
  async check() {
    const keys = await this.store.ownKeys();
    if (!keys.length) return "missing";
    const published = await this.contacts.published(this.me);
    const key = keys.find((own) => published && same(published, own.publicKey)) ?? keys[0];
    if (!published) await this.#publish(key);
    if (key !== keys[0]) await this.store.useKey(key);
    const state = !published || same(published, key.publicKey) ? "ready" : "foreign";
    const before = await this.state();
    await this.store.set("keyState", state);
    if (state === "foreign" && before !== state) {
      const detail = { contact: this.me, isOwn: true, safetyNumber: null, pinnedKid: key.kid };
      this.contacts.emit("keychanged", detail);
    }
    return state;
  }

  /** @returns {Promise<KeyState>} as `check()` has last found it */
  async state() {
    return (await this.store.get("keyState")) ?? "ready";
  }

  /** @returns {Promise<OwnKey>} the key in use */
  async key() {
    const [key] = await this.store.ownKeys();
    if (!key) {
      const remedy = "Restore the backup with the recovery code, or replace the key.";
      throw new NoKey("own_key_missing", `There is no key of mine on this device. ${remedy}`);
    }
    return key;
  }

  /** Publish this device's key, or a new one if it has none, in place of the directory's. */
  async replace() {
    const [key] = await this.store.ownKeys();
    await this.#publish(key ?? (await this.#make()));
    await this.store.set("keyState", "ready");
  }

  /**
   * Put the backup on the server.
   *
   * @param {{oldCode?: string, replace?: boolean}} options
   * @returns {Promise<string>} the recovery code, to be shown once
   */
  async backUp({ oldCode, replace = false }) {
    if (oldCode !== undefined) await this.#sealAgain(oldCode);
    const { kid } = await this.key();
    if (this.#sealed?.kid !== kid) {
      throw new NoKey(
        "own_key_missing",
        "The key can be backed up only in the page that has made or restored it. Give `oldCode`.",
      );
    }
    const { code, blob } = this.#sealed;
    await this.#putBackup(toBase64url(blob), replace || oldCode !== undefined);
    this.#sealed = null;
    return code;
  }

  /**
   * Take the key of the backup into use.
   *
   * @param {string} code
   */
  async restore(code) {
    const { privateKey } = await this.#fetchBackup(code);
    const identity = await fromPrivateBytes(privateKey);
    await this.#seal(privateKey, identity.kid);
    const known = (await this.store.ownKeys()).find((key) => key.kid === identity.kid);
    await this.store.useKey(known ?? { ...identity, isRestored: true });
    await this.check();
  }

  async #make() {
    const { identity, privateBytes } = await create();
    await this.#seal(privateBytes, identity.kid);
    const key = { ...identity, isRestored: false };
    await this.store.useKey(key);
    await this.store.set("keyState", "ready");
    return key;
  }

  /** @param {OwnKey} key */
  async #publish(key) {
    await this.rest.post("keys", { public_key: toBase64url(key.publicKey) });
  }

  /** @param {string} oldCode */
  async #sealAgain(oldCode) {
    const { privateKey } = await this.#fetchBackup(oldCode);
    const { kid } = await fromPrivateBytes(privateKey);
    await this.#seal(privateKey, kid);
  }

  /**
   * @param {Bytes} privateBytes which are gone afterwards
   * @param {string} kid
   */
  async #seal(privateBytes, kid) {
    const secret = newSecret();
    const blob = await sealBackup(secret, this.me, privateBytes, Date.now());
    privateBytes.fill(0);
    this.#sealed = { code: await codeOf(secret), blob, kid };
  }

  /** @param {string} code */
  async #fetchBackup(code) {
    const secret = await readCode(code);
    try {
      const { blob } = await this.rest.get("key-backup");
      return await openBackup(secret, this.me, fromBase64url(blob));
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      throw new BadCode("There is no backup on the server.");
    }
  }

  /**
   * @param {string} blob
   * @param {boolean} mayReplace
   */
  async #putBackup(blob, mayReplace) {
    const { version, isThere } = await this.#backupOnServer();
    if (isThere && !mayReplace) {
      const remedy = "Restore it, or replace it for good with `replace`.";
      throw new E2EError("backup_exists", `There is a backup already. ${remedy}`);
    }
    await this.rest.call("PUT", "key-backup", { body: { blob, version } });
  }

  /** @returns {Promise<{version: number, isThere: boolean}>} */
  async #backupOnServer() {
    try {
      const { version } = await this.rest.get("key-backup");
      return { version, isThere: true };
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      // Versions go on counting over a backup that was deleted.
      return { version: error.body.version ?? 0, isThere: false };
    }
  }
}
