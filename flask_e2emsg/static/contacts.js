/**
 * The keys of others: pinned at first contact, and changed only by the user (docs/crypto.md 4).
 *
 * Guarantees: nothing is sealed for a key that is not pinned, and only `accept()` pins another one.
 */

import { fromBase64url, same } from "./bytes.js";
import { NoKey, Refused } from "./errors.js";
import { kidOf } from "./keys.js";
import { segment } from "./rest.js";
import { safetyNumber } from "./safety.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./errors.js").DirectoryKey} DirectoryKey */
/** @typedef {import("./rest.js").Rest} Rest */
/** @typedef {import("./store.js").KnownKey} KnownKey */
/** @typedef {import("./store.js").Pin} Pin */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {(name: string, detail: object) => void} Emit */

const CHECK_AGAIN_MS = 3600_000; // a sender asks the directory at least so often

export class Contacts {
  /**
   * @param {string} me
   * @param {Store} store
   * @param {Rest} rest
   * @param {Emit} emit
   */
  constructor(me, store, rest, emit) {
    this.me = me;
    this.store = store;
    this.rest = rest;
    this.emit = emit;
  }

  /**
   * The public key of the directory, or null.
   *
   * @param {string} userId
   * @returns {Promise<Bytes | null>}
   */
  async published(userId) {
    try {
      const { public_key } = await this.rest.get(`keys/${segment(userId)}`);
      return fromBase64url(public_key);
    } catch (error) {
      if (error instanceof Refused && error.status === 404) return null;
      throw error;
    }
  }

  /**
   * A contact's pin; made now, from the directory, if it is the first contact.
   *
   * @param {string} userId
   * @returns {Promise<Pin>}
   */
  async meet(userId) {
    const pin = await this.store.pin(userId);
    if (pin) return pin;
    const met = await this.refresh(userId);
    if (met) return met;
    throw new NoKey("no_key", "This contact has no key yet, so nothing can be sealed for it.");
  }

  /**
   * A contact's pin, compared with the directory unless that was done not long ago.
   *
   * @param {string} userId
   * @returns {Promise<Pin>}
   */
  async meetAgain(userId) {
    const pin = await this.meet(userId);
    if (Date.now() - pin.checkedAt < CHECK_AGAIN_MS) return pin;
    try {
      return (await this.refresh(userId)) ?? pin;
    } catch {
      return pin; // Whoever is offline seals for the key that is pinned.
    }
  }

  /**
   * Compare with the directory now.
   *
   * @param {string} userId
   * @returns {Promise<Pin | null>} null when the directory has no key, and there was no pin
   */
  async refresh(userId) {
    const publicKey = await this.published(userId);
    return publicKey ? this.shown(userId, publicKey) : ((await this.store.pin(userId)) ?? null);
  }

  /**
   * The server shows this key for a contact: pin it at first contact; another one waits for
   * `accept()`, and the user is told.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   * @returns {Promise<Pin>}
   */
  async shown(userId, publicKey) {
    const key = { kid: await kidOf(publicKey), publicKey };
    let isNews = false;
    const pin = await this.store.changePin(userId, (known) => {
      const now = withShown(userId, known, key);
      isNews = Boolean(now.pending) && now.pending?.kid !== known?.pending?.kid;
      return now;
    });
    if (isNews) await this.#tellOfChange(pin);
    return pin;
  }

  /**
   * Pin the key that the directory shows now. With `number`, the safety number that the user has
   * compared, only if it is the number of that key.
   *
   * @param {string} userId
   * @param {string} [number]
   * @returns {Promise<Pin>}
   */
  async accept(userId, number) {
    const { pending } = await this.meet(userId);
    if (number !== undefined && number !== (await this.safetyNumber(userId))) {
      throw new NoKey("no_key", "The contact's key has changed since. Compare the new number.");
    }
    return this.store.changePin(userId, (known) => {
      const pin = /** @type {Pin} */ (known);
      // Another tab may have learned of yet another key: that one was not shown to this user.
      if (!pending || pin.pending?.kid !== pending.kid) return pin;
      const earlier = [pin.current, ...pin.earlier].filter((key) => key.kid !== pending.kid);
      return { ...pin, current: pending, earlier, pending: null };
    });
  }

  /**
   * 60 digits: of the key that waits to be accepted, if there is one.
   *
   * @param {string} userId
   * @returns {Promise<string>}
   */
  async safetyNumber(userId) {
    const [{ current, pending }, [own]] = await Promise.all([
      this.meet(userId),
      this.store.ownKeys(),
    ]);
    if (!own) throw new NoKey("own_key_missing", "There is no key of mine on this device.");
    const mine = { userId: this.me, publicKey: own.publicKey };
    return safetyNumber(mine, { userId, publicKey: (pending ?? current).publicKey });
  }

  /**
   * By kid: what a sender's envelopes may be under.
   *
   * @param {string} userId
   * @returns {Promise<Map<string, Bytes>>}
   */
  async keysOf(userId) {
    const pin = userId === this.me ? undefined : await this.store.pin(userId);
    const known = pin ? [pin.current, ...pin.earlier] : [];
    const keys = userId === this.me ? await this.store.ownKeys() : known;
    return new Map(keys.map(({ kid, publicKey }) => [kid, publicKey]));
  }

  /** @param {Pin} pin */
  async #tellOfChange({ userId, current, pending }) {
    const number = await this.safetyNumber(userId).catch(() => null);
    const kids = { kid: pending?.kid ?? null, pinnedKid: current.kid };
    this.emit("keychanged", { contact: userId, isOwn: false, safetyNumber: number, ...kids });
  }
}

/**
 * @param {string} userId
 * @param {Pin | undefined} known
 * @param {KnownKey} key
 * @returns {Pin}
 */
function withShown(userId, known, key) {
  const checkedAt = Date.now();
  if (!known) return { userId, current: key, earlier: [], pending: null, checkedAt };
  const isPinned = same(known.current.publicKey, key.publicKey);
  return { ...known, pending: isPinned ? null : key, checkedAt };
}
