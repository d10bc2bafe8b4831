/**
 * The browser client: end-to-end encrypted messaging for a page.
 *
 *     import { E2EClient } from "/api/static/e2emsg.js";
 *
 *     const client = await E2EClient.open({ url: "/api", userId, token: async () => jwt });
 *     client.addEventListener("message", ({ detail }) => show(detail));
 *     await client.send("42", "Hello!");
 *
 * The server carries ciphertext only, and so does this browser's database; cleartext exists in the
 * page. What it does is in docs/crypto.md, what travels in docs/protocol.md.
 */

import { Chains } from "./chains.js";
import { Contacts } from "./contacts.js";
import { E2EError, Offline, Refused, Unsupported } from "./errors.js";
import { Identity } from "./identity.js";
import { Inbox } from "./inbox.js";
import { checkSupport } from "./keys.js";
import { Leader } from "./leader.js";
import { Opening, sealedOf } from "./opening.js";
import { Outbox } from "./outbox.js";
import { Rest, query, segment } from "./rest.js";
import { grouped, qrText } from "./safety.js";
import { Store } from "./store.js";
import { Tabs } from "./tabs.js";

export { BadCode, E2EError, NoKey, Offline, Refused, Unreadable, Unsupported } from "./errors.js";

/** @typedef {import("./identity.js").KeyState} KeyState */
/** @typedef {import("./opening.js").Message} Message */
/** @typedef {import("./opening.js").Sealed} Sealed */
/** @typedef {import("./outbox.js").SendOptions} SendOptions */
/** @typedef {import("./rest.js").TokenSource} TokenSource */

/**
 * @typedef {object} OpenOptions
 * @property {string} url of the server's prefix, as `/api`
 * @property {string} userId
 * @property {TokenSource} token gives a valid access token whenever it is asked; null where the
 *     host keeps tokens in cookies
 * @property {string} [storeName] of this browser's database
 */

const DEFAULT_LIMIT = 50;

export class E2EClient extends EventTarget {
  #isClosed = false;
  #store;
  #rest;
  #contacts;
  #identity;
  #opening;
  #outbox;
  #inbox;
  #leader;
  #tabs;

  /** Whether there is a connection to the server, of this tab's or of the leading one's. */
  isConnected = false;

  /**
   * Open this browser's store, and connect. The first time, a key is made and published.
   *
   * @param {OpenOptions} options
   * @returns {Promise<E2EClient>}
   */
  static async open({ url, userId, token, storeName = `e2emsg ${url} ${userId}` }) {
    await checkSupport();
    if (!globalThis.navigator?.locks) throw new Unsupported("This browser has no Web Locks.");
    const base = new URL(`${url.replace(/\/+$/, "")}/`, globalThis.location?.href);
    const store = await Store.open(storeName);
    try {
      const client = new E2EClient(storeName, userId, store, new Rest(base, token));
      await client.#begin();
      return client;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /**
   * Use `open()`.
   *
   * @param {string} name
   * @param {string} userId
   * @param {Store} store
   * @param {Rest} rest
   */
  constructor(name, userId, store, rest) {
    super();
    this.storeName = name;
    this.userId = userId;
    this.#store = store;
    this.#rest = rest;
    this.#tabs = new Tabs(name, {
      lead: () => this.#leader.run().catch((error) => this.#failed(error)),
      event: (event, detail) => this.#dispatch(event, detail),
      ask: (ask, detail) => this.#inBackground(this.#obey(ask, detail)),
    });
    const emit = (/** @type {string} */ event, /** @type {object} */ detail) =>
      this.#emit(event, detail);
    this.#contacts = new Contacts(userId, store, rest, emit);
    this.#identity = new Identity(this.#contacts);
    this.#opening = new Opening(this.#contacts);
    const chains = new Chains(userId, this.#opening);
    const inBackground = (/** @type {Promise<unknown>} */ work) => this.#inBackground(work);
    this.#outbox = new Outbox(
      this.#contacts,
      this.#identity,
      chains,
      (contact, work) => this.#tabs.exclusively(`to ${contact}`, work),
      inBackground,
    );
    this.#inbox = new Inbox(chains, this.#outbox, (error) => this.#failed(error));
    this.#leader = new Leader(this.#identity, this.#inbox, this.#outbox, inBackground);
  }

  /**
   * `ready`; or `missing`: the user has a key, and this device has not: `restore()` or
   * `replaceKey()`; or `foreign`: the directory has another key than this device, and nothing is
   * sent until `restore()` or `replaceKey()`.
   *
   * @returns {Promise<KeyState>}
   */
  keyState() {
    return this.#identity.state();
  }

  /**
   * Seal a message and put it into the durable outbox; it is sent as soon as that is possible.
   *
   * @param {string} contact
   * @param {string} text the message, or the emoji of a reaction; ignored for a deletion
   * @param {SendOptions} [options]
   * @returns {Promise<string>} the message id
   */
  async send(contact, text, options = {}) {
    const id = await this.#outbox.enqueue(contact, String(text), options);
    this.#tabs.ask("flush");
    return id;
  }

  /**
   * Opened messages with a contact, newest first. Without a connection, what this browser has.
   *
   * @param {string} contact
   * @param {{before?: number | null, limit?: number}} [page] `before`: the `next` of the last page
   * @returns {Promise<{messages: Message[], next: number | null, hasMore: boolean}>}
   */
  async history(contact, { before = null, limit = DEFAULT_LIMIT } = {}) {
    const page = await this.#page(contact, before, limit);
    await this.#meet(contact);
    // What I wrote to myself is in my mailbox twice.
    const once = new Map(page.sealed.map((one) => [one.id, one]));
    const messages = await this.#opening.show([...once.values()]);
    return { messages, next: page.next, hasMore: page.hasMore };
  }

  /**
   * @param {{before?: number | null, limit?: number}} [page] `before`: position of the last `last`
   * @returns {Promise<{contact: string, conversationId: string | null, last: Message,
   *   unread: number}[]>} newest first
   */
  async conversations({ before = null, limit = DEFAULT_LIMIT } = {}) {
    const found = await this.#rest.get(`conversations${query({ before, limit })}`);
    return Promise.all(
      found.map(async (/** @type {any} */ { contact_id, conversation_id, last, unread }) => {
        await this.#meet(contact_id);
        const [shown] = await this.#opening.show([sealedOf(last)]);
        return { contact: contact_id, conversationId: conversation_id, last: shown, unread };
      }),
    );
  }

  /**
   * Everything from a contact up to a message is read.
   *
   * @param {string} contact
   * @param {number} position of the message
   */
  async markRead(contact, position) {
    await this.#rest.post(`messages/${segment(contact)}/read`, { up_to: position });
  }

  /**
   * Tell a contact that the user types, or has stopped. Ephemeral; lost without a socket.
   *
   * @param {string} contact
   * @param {boolean} [isActive]
   */
  typing(contact, isActive = true) {
    this.#tabs.ask("write", { type: "typing", to: contact, active: isActive });
  }

  /**
   * What two people compare: of the key that waits to be accepted, if there is one.
   *
   * @param {string} contact
   * @returns {Promise<{digits: string, groups: string, qrText: string, isChanged: boolean}>}
   */
  async safetyNumber(contact) {
    const digits = await this.#contacts.safetyNumber(contact);
    const { pending } = await this.#contacts.meet(contact);
    const isChanged = pending !== null;
    return { digits, groups: grouped(digits), qrText: qrText(digits), isChanged };
  }

  /**
   * Accept a contact's new key. What waits is sealed for it; what has come under it is opened.
   *
   * @param {string} contact
   * @param {string} [digits] the safety number that the user has compared: another one is refused
   */
  async acceptKey(contact, digits) {
    await this.#contacts.accept(contact, digits?.replace(/\s/g, ""));
    await this.#outbox.sealAgain(contact);
    this.#tabs.ask("reopen");
    this.#tabs.ask("flush");
  }

  /**
   * Store a backup of my key on the server, sealed under a fresh recovery code.
   *
   * The key's bytes are gone when the page is: later, give the `oldCode`. An existing backup is
   * replaced only with `replace` or `oldCode`.
   *
   * @param {{oldCode?: string, replace?: boolean}} [options]
   * @returns {Promise<string>} the recovery code: show it once, keep it nowhere
   */
  makeBackup(options = {}) {
    return this.#identity.backUp(options);
  }

  /**
   * Take my key from the backup: the whole history opens.
   *
   * @param {string} code
   * @returns {Promise<KeyState>}
   */
  async restore(code) {
    await this.#tabs.exclusively("keys", () => this.#identity.restore(code));
    return this.#keyChanged();
  }

  /**
   * Publish this device's key, or a new one, in place of the directory's. Contacts see another key.
   *
   * @returns {Promise<KeyState>}
   */
  async replaceKey() {
    await this.#tabs.exclusively("keys", () => this.#identity.replace());
    return this.#keyChanged();
  }

  /** End the connection, give up the lead, close the store. */
  close() {
    this.#isClosed = true;
    this.#tabs.close();
    this.#leader.close();
    this.#store.close();
  }

  async #begin() {
    const owner = await this.#store.get("owner");
    if (owner !== undefined && owner !== this.userId) {
      throw new E2EError("other_user", "This store is another user's. Give another `storeName`.");
    }
    await this.#store.set("owner", this.userId);
    await this.#tabs.exclusively("keys", async () => {
      await this.#identity.ensure();
      await this.#identity.check().catch(ignoreForNow);
    });
    this.#tabs.start();
    this.#tabs.ask("status");
  }

  /**
   * What other tabs ask of the leading one.
   *
   * @param {string} ask
   * @param {any} detail
   */
  async #obey(ask, detail) {
    if (ask === "flush") await this.#outbox.flush();
    if (ask === "reopen") await this.#inbox.reopen();
    if (ask === "write") this.#leader.write(detail);
    if (ask === "status" && this.#leader.isConnected) this.#tabs.tell("connected", {});
  }

  /**
   * A device that has only just got its key knows no contacts.
   *
   * @param {string} contact
   */
  async #meet(contact) {
    if (contact !== this.userId) await this.#contacts.meet(contact).catch(ignoreRefusals);
  }

  /** @returns {Promise<KeyState>} */
  async #keyChanged() {
    await this.#outbox.sealAllAgain();
    this.#tabs.ask("reopen");
    this.#tabs.ask("flush");
    return this.keyState();
  }

  /**
   * @param {string} contact
   * @param {number | null} before
   * @param {number} limit
   * @returns {Promise<{sealed: Sealed[], next: number | null, hasMore: boolean}>}
   */
  async #page(contact, before, limit) {
    try {
      const page = await this.#rest.get(`messages/${segment(contact)}${query({ before, limit })}`);
      return { sealed: page.messages.map(sealedOf), next: page.next, hasMore: page.has_more };
    } catch (error) {
      if (!(error instanceof Offline)) throw error;
    }
    const sealed = await this.#store.history(contact, before, limit);
    const hasMore = sealed.length === limit;
    return { sealed, next: hasMore ? (sealed.at(-1)?.seq ?? null) : null, hasMore };
  }

  /**
   * Nobody waits for this work: what it fails with becomes an event.
   *
   * @param {Promise<unknown>} work
   */
  #inBackground(work) {
    work.catch((error) => this.#failed(error));
  }

  /** @param {unknown} error whose text is not told: it is not ours, and might say anything */
  #failed(error) {
    const name = error instanceof Error || error instanceof DOMException ? error.name : "Error";
    this.#dispatch("failed", { name, code: error instanceof E2EError ? error.code : null });
  }

  /**
   * @param {string} event
   * @param {object} detail
   */
  #emit(event, detail) {
    this.#dispatch(event, detail);
    this.#tabs.tell(event, detail);
  }

  /**
   * @param {string} event
   * @param {object} detail
   */
  #dispatch(event, detail) {
    if (this.#isClosed) return;
    if (event === "connected") this.isConnected = true;
    if (event === "disconnected") this.isConnected = false;
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}

/**
 * Without an answer it begins with what is here; without a valid token it does not begin.
 *
 * @param {unknown} error
 */
function ignoreForNow(error) {
  const isRefused = error instanceof Refused && (error.status === 401 || error.status === 403);
  if (!(error instanceof E2EError) || isRefused) throw error;
}

/** @param {unknown} error */
function ignoreRefusals(error) {
  if (!(error instanceof E2EError)) throw error;
}
