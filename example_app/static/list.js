/**
 * The conversations at the left: who, the last message as this browser opens it, what is unread.
 *
 * Messages of one contact are one conversation here, whatever their `conversationId`.
 */

import { announce, byId, make, paintAvatar, shortTime } from "./dom.js";
import { previewInWords } from "./words.js";

const PAGE = 50;
const TITLE = document.title;

export class ConversationList {
  #entries = new Map(); // by contact: {contact, last, unread}
  #rows = new Map(); // by contact
  #typing = new Set();
  #waiting = null; // messages that came while the list was being loaded
  #before = null;
  #current = null;

  /**
   * @param {import("/api/static/e2emsg.js").E2EClient} client
   * @param {import("./people.js").People} people
   */
  constructor(client, people) {
    this.client = client;
    this.people = people;
    byId("more-conversations").onclick = () => this.#loadPage(this.#before);
  }

  /** Read the list from the server. Without a connection, what is shown stays. */
  async load() {
    if (this.#waiting) return;
    this.#waiting = [];
    try {
      await this.#loadPage(null);
    } finally {
      const waiting = this.#waiting;
      this.#waiting = null;
      for (const message of waiting) await this.receive(message);
    }
  }

  /** Show somebody to whom nothing was written yet. */
  add(contact) {
    if (!this.#entries.has(contact)) this.#entries.set(contact, { contact, last: null, unread: 0 });
    this.#render();
  }

  /** A message has come, or one of mine is on the server. */
  async receive(message) {
    if (this.#waiting) {
      this.#waiting.push(message);
      return;
    }
    const { contact } = message;
    await this.people.load([contact]);
    const known = this.#entries.get(contact);
    const isNews = isLater(message, known?.last);
    // What opens later takes the place of what did not.
    if (!isNews && known?.last?.id !== message.id) return;
    const isUnread = isNews && !message.isMine && !message.readAt && contact !== this.client.userId;
    const unread = (known?.unread ?? 0) + (isUnread ? 1 : 0);
    this.#entries.set(contact, { contact, last: message, unread });
    this.#typing.delete(contact);
    this.#render();
    if (isUnread) {
      const name = this.people.nameOf(contact);
      announce(`${name}: ${previewInWords(message, name)}`);
    }
  }

  /** Everything from a contact was read. */
  markRead(contact) {
    const entry = this.#entries.get(contact);
    if (!entry?.unread) return;
    entry.unread = 0;
    this.#render();
  }

  setTyping(contact, isActive) {
    if (isActive) this.#typing.add(contact);
    else this.#typing.delete(contact);
    this.#render();
  }

  setCurrent(contact) {
    this.#current = contact;
    this.#render();
  }

  async #loadPage(before) {
    const page = await this.client.conversations({ before, limit: PAGE });
    await this.people.load(page.map(({ contact }) => contact));
    if (before === null) {
      for (const entry of this.#entries.values()) entry.unread = 0;
    }
    for (const { contact, last, unread } of page) {
      const known = this.#entries.get(contact);
      const newest = known && isLater(known.last, last) ? known.last : last;
      const count = (known?.unread ?? 0) + (contact === this.client.userId ? 0 : unread);
      this.#entries.set(contact, { contact, last: newest, unread: count });
    }
    this.#before = page.at(-1)?.last.position ?? null;
    byId("more-conversations").hidden = page.length < PAGE;
    this.#render();
  }

  #render() {
    const entries = [...this.#entries.values()].sort(byNewest);
    const focused = document.activeElement;
    let next = byId("conversations").firstElementChild;
    for (const entry of entries) {
      const row = this.#rowOf(entry);
      // Only what has moved is moved: whoever is just clicking on another one is not disturbed.
      if (row === next) next = row.nextElementSibling;
      else byId("conversations").insertBefore(row, next);
    }
    if (focused !== document.activeElement) /** @type {HTMLElement} */ (focused).focus();
    byId("no-conversations").hidden = entries.length > 0;
    const unread = entries.reduce((sum, entry) => sum + entry.unread, 0);
    document.title = unread ? `(${unread}) ${TITLE}` : TITLE;
  }

  /** The contact's row, made once, with what it shows now. */
  #rowOf({ contact, last, unread }) {
    const row = this.#rows.get(contact) ?? new Row(contact);
    this.#rows.set(contact, row);
    const name = this.people.nameOf(contact);
    const isTyping = this.#typing.has(contact);
    const words = last ? previewInWords(last, last.isMine ? "You" : name) : "No messages yet";
    const preview = isTyping ? "typing…" : words;
    row.show({ name, isTyping, preview, unread, at: last?.createdAt, isCurrent: contact === this.#current });
    return row.element;
  }
}

/** One conversation. Its elements stay, since a click whose element is replaced meanwhile is none. */
class Row {
  #link;
  #avatar = make("span", { class: "avatar", "aria-hidden": "true" });
  #name = make("span", { class: "name" });
  #time = make("time");
  #preview = make("span");
  #badge = make("span", { class: "badge" });

  /** @param {string} contact */
  constructor(contact) {
    const parts = [this.#avatar, this.#name, this.#time, this.#preview, this.#badge];
    this.#link = make("a", { href: `#/${encodeURIComponent(contact)}` }, ...parts);
    this.element = make("li", {}, this.#link);
  }

  show({ name, isTyping, preview, unread, at, isCurrent }) {
    paintAvatar(this.#avatar, name);
    this.#name.textContent = name;
    this.#time.dateTime = at ?? "";
    this.#time.textContent = at ? shortTime(new Date(at)) : "";
    this.#preview.className = isTyping ? "preview typing" : "preview";
    this.#preview.textContent = preview;
    this.#badge.hidden = !unread;
    this.#badge.replaceChildren(...(unread ? [String(unread), make("span", { class: "unseen" }, " unread")] : []));
    if (isCurrent) this.#link.setAttribute("aria-current", "true");
    else this.#link.removeAttribute("aria-current");
  }
}

/** Whether a message comes after another one in the mailbox. */
function isLater(message, other) {
  if (!message) return false;
  if (!other) return true;
  if (message.position && other.position) return message.position > other.position;
  return Date.parse(message.createdAt) > Date.parse(other.createdAt);
}

function byNewest(left, right) {
  if (!left.last || !right.last) return left.last ? 1 : right.last ? -1 : 0;
  return isLater(right.last, left.last) ? 1 : -1;
}
