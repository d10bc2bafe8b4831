/**
 * The messages of one conversation on the page: in the order of the mailbox, each once.
 *
 * A row is a message of the client, or one that is still to be sent; `put()` adds it or brings it
 * up to date. Rows without a position stand at the end, in the order in which they came.
 */

import { clock, day, make } from "./dom.js";
import { bodyInWords } from "./words.js";

const TOGETHER_MS = 5 * 60_000; // messages of one sender within that time stand close together

const TICKS = {
  sending: ["◷", "Not sent yet"],
  sent: ["✓", "Sent"],
  delivered: ["✓✓", "Delivered"],
  read: ["✓✓", "Read"],
};

export class Rows {
  #rows = new Map(); // by message id
  #marks = new Map(); // by message id: `deliveredAt` and `readAt`, as receipts have said
  #arrivals = 0;

  /**
   * @param {HTMLElement} list
   * @param {string} name of the contact
   */
  constructor(list, name) {
    this.list = list;
    this.name = name;
    list.replaceChildren();
  }

  get(id) {
    return this.#rows.get(id)?.message;
  }

  /** The newest position of what I could read and have not yet; 0 if there is none. */
  get newestUnread() {
    const unread = [...this.#rows.values()]
      .map(({ message }) => message)
      .filter(({ isMine, readAt, unreadable }) => !isMine && !readAt && !unreadable);
    return Math.max(0, ...unread.map(({ position }) => position ?? 0));
  }

  /**
   * Show a message, or what is new of it.
   *
   * @param {Partial<import("/api/static/e2emsg.js").Message> & {id: string, wait?: string}} message
   */
  put(message) {
    const row = this.#rows.get(message.id) ?? { note: null, arrival: (this.#arrivals += 1) };
    row.message = { ...row.message, ...message, ...this.#marks.get(message.id) };
    row.key = this.#keyOf(row);
    const element = this.#element(row);
    if (row.element) row.element.replaceWith(element);
    row.element = element;
    this.#rows.set(message.id, row);
    this.#place(row);
  }

  /** Messages of mine were delivered or read. It may be told before the message itself is. */
  mark(ids, change) {
    for (const id of ids) {
      this.#marks.set(id, { ...this.#marks.get(id), ...change });
      if (this.#rows.has(id)) this.put({ id });
    }
  }

  /** Everything from the contact up to a position is read. */
  markRead(position, at) {
    for (const { message } of this.#rows.values()) {
      if (!message.isMine && message.position <= position) message.readAt ??= at;
    }
  }

  /** Say something below a message. */
  annotate(id, note) {
    const row = this.#rows.get(id);
    if (!row || row.note === note) return;
    row.note = note;
    this.put({ id });
  }

  /** A message that was sent without a socket has no position yet: it stays where it was put. */
  #keyOf({ message, key }) {
    if (message.position) return message.position;
    if (!message.createdAt) return Infinity;
    if (key && key < Infinity) return key;
    const positions = [...this.#rows.values()].map((row) => row.message.position ?? 0);
    return Math.max(0, ...positions) + 0.5;
  }

  #place(row) {
    const { element } = row;
    let next = null;
    for (let last = this.list.lastElementChild; last; last = last.previousElementSibling) {
      if (last !== element && isBefore(this.#rows.get(last.dataset.id), row)) break;
      if (last !== element) next = last;
    }
    if (element.parentNode !== this.list || element.nextElementSibling !== next) {
      this.list.insertBefore(element, next);
    }
    this.#group(element);
    if (next) this.#group(next);
  }

  /** Whether a day begins with this row, and whether it belongs to the one before. */
  #group(element) {
    const [one, before] = [element, element.previousElementSibling].map(
      (each) => each && this.#rows.get(each.dataset.id).message,
    );
    const label = day(timeOf(one));
    const isNewDay = !before || day(timeOf(before)) !== label;
    if (isNewDay) element.dataset.day = label;
    else delete element.dataset.day;
    const isClose = before && timeOf(one) - timeOf(before) < TOGETHER_MS;
    element.classList.toggle("follows", !isNewDay && isClose && before.isMine === one.isMine);
  }

  #element({ message, note }) {
    const { isMine, unreadable } = message;
    const sender = isMine ? "You" : this.name;
    const isSaid = ["text", "reply"].includes(message.type) && !unreadable;
    const side = isMine ? "mine" : "theirs";
    const said = note ?? message.wait;
    return make(
      "li",
      { class: `row ${side}`, "data-id": message.id },
      make(
        "div",
        { class: isSaid ? "bubble" : "bubble told" },
        make("span", { class: "unseen" }, `${sender}: `),
        message.type === "reply" && isSaid ? make("p", { class: "quote" }, this.#quoted(message)) : null,
        make("p", { class: "body", dir: "auto" }, bodyInWords(message, sender)),
        make("p", { class: "meta" }, time(message), isMine ? ticks(message) : null),
      ),
      said ? make("p", { class: message.isRefused ? "note bad" : "note" }, said) : null,
    );
  }

  #quoted({ target }) {
    const body = this.get(target)?.body;
    return body ? `“${[...body].slice(0, 80).join("")}”` : "Reply to an earlier message";
  }
}

function time(message) {
  const at = timeOf(message);
  return make("time", { datetime: at.toISOString(), title: at.toLocaleString() }, clock(at));
}

function ticks(message) {
  const { readAt, deliveredAt, createdAt } = message;
  if (message.isRefused) return null;
  const state = readAt ? "read" : deliveredAt ? "delivered" : createdAt ? "sent" : "sending";
  const [sign, words] = TICKS[state];
  return make("span", { class: "ticks", "data-state": state, role: "img", "aria-label": words, title: words }, sign);
}

/** The server's time, which nobody's clock can shift; the sender's for what is still to be sent. */
function timeOf({ createdAt, sentAt }) {
  return new Date(createdAt ?? sentAt ?? Date.now());
}

function isBefore(one, other) {
  return one.key === other.key ? one.arrival < other.arrival : one.key < other.key;
}
