/**
 * The conversation that is open: its history, what comes, what is written, and who types.
 */

import { byId, focusField, paintAvatar, showWords, toast } from "./dom.js";
import { Rows } from "./rows.js";
import { inWords, refusalInWords, waitInWords } from "./words.js";

const PAGE = 30;
const NEAR = 120; // pixels from an end of the scrolled part that count as being there
const TYPING_EVERY_MS = 3000;
const TYPING_FOR_MS = 6000;

const CHAIN_NOTES = {
  gap: "Something that was sent before this message has not arrived.",
  fork: "The order of messages is not certain here: two devices wrote at once, or the server changed it.",
};

export class Thread {
  contact = null;
  #rows = null;
  #next = null;
  #isLoading = false;
  #outgoing = new Map(); // by message id: what is not on the server yet, of all conversations
  #drafts = new Map(); // by contact
  #notes = new Map(); // by message id: what is to be said below it
  #typedAt = 0;
  #typingTimer = 0;

  /**
   * @param {import("/api/static/e2emsg.js").E2EClient} client
   * @param {import("./people.js").People} people
   * @param {{read: (contact: string) => void, loaded: () => void}} listener
   */
  constructor(client, people, listener) {
    this.client = client;
    this.people = people;
    this.listener = listener;
    byId("scroll").onscroll = () => this.#scrolled();
    byId("newer").onclick = () => this.#scrollDown();
    byId("composer").onsubmit = (event) => this.#submit(event);
    byId("text").onkeydown = (event) => this.#key(event);
    byId("text").oninput = () => this.#typed();
    byId("text").onblur = () => this.#stopTyping();
    document.addEventListener("visibilitychange", () => this.#markRead());
  }

  /** Show the conversation with somebody, or none. */
  async open(contact) {
    this.#stopTyping();
    if (this.contact !== null) this.#drafts.set(this.contact, byId("text").value);
    this.contact = contact;
    byId("thread").hidden = contact === null;
    byId("nobody").hidden = contact !== null;
    showWords("thread-error", null);
    if (contact === null) return;
    this.#clear(); // what comes from now on belongs to this contact
    await this.people.load([contact]);
    if (this.contact !== contact) return;
    const name = this.people.nameOf(contact);
    byId("contact-name").textContent = name;
    paintAvatar(byId("contact-avatar"), name);
    this.setTyping(contact, false);
    byId("text").value = this.#drafts.get(contact) ?? "";
    this.#fit();
    focusField("text", "contact-name");
    await this.reload();
  }

  /** Read the history anew: another key opens more of it. */
  async reload() {
    if (this.contact === null) return;
    this.#clear();
    for (const [id, message] of this.#outgoing) {
      if (message.contact === this.contact) this.#rows.put({ id, ...message });
    }
    await this.#load();
    this.listener.loaded();
  }

  /** A message has come, or one of mine is on the server. */
  receive(message) {
    this.#outgoing.delete(message.id);
    if (message.contact !== this.contact) return;
    const isAtEnd = this.#isAtEnd();
    const isNew = !this.#rows.get(message.id);
    this.#rows.put({ wait: null, ...message });
    if (this.#notes.has(message.id)) this.#rows.annotate(message.id, this.#notes.get(message.id));
    this.#follow(isAtEnd || message.isMine, isNew);
    if (!message.isMine) this.setTyping(message.contact, false);
    this.#markRead();
  }

  receipt({ kind, by, ids, at }) {
    if (by !== this.contact) return;
    this.#rows.mark(ids, kind === "read" ? { readAt: at } : { deliveredAt: at });
  }

  /** @param {"gap" | "fork"} what */
  chainBreak(what, { id, contact }) {
    this.#notes.set(id, CHAIN_NOTES[what]); // the event comes before that of its message
    if (contact === this.contact) this.#rows.annotate(id, CHAIN_NOTES[what]);
  }

  /** A message of mine waits, or is on its way. */
  outbox({ id, state, code }) {
    const message = this.#outgoing.get(id);
    if (!message || !["held", "waiting"].includes(state)) return;
    message.wait = waitInWords(state, code);
    this.#show(id);
  }

  refused({ id, code }) {
    const message = this.#outgoing.get(id);
    if (!message) {
      toast(refusalInWords(code));
      return;
    }
    Object.assign(message, { wait: refusalInWords(code), isRefused: true });
    this.#show(id);
  }

  setTyping(contact, isActive) {
    if (contact !== this.contact) return;
    byId("typing").textContent = isActive ? "typing…" : "";
  }

  /** Nothing can be sent until a key is accepted. */
  block(isBlocked) {
    byId("text").disabled = byId("send").disabled = isBlocked;
    byId("text").placeholder = isBlocked ? "Blocked until you have dealt with the changed key" : "Message";
  }

  #clear() {
    this.#rows = new Rows(byId("messages"), this.people.nameOf(this.contact));
    this.#next = null;
    this.#isLoading = false;
    byId("newer").hidden = byId("older").hidden = true;
  }

  #show(id) {
    const message = this.#outgoing.get(id);
    if (message.contact === this.contact) this.#rows.put({ id, ...message });
  }

  async #load() {
    const [contact, rows] = [this.contact, this.#rows];
    this.#isLoading = true;
    byId("older").hidden = this.#next === null;
    try {
      const page = await this.client.history(contact, { before: this.#next, limit: PAGE });
      if (rows !== this.#rows) return;
      const scroll = byId("scroll");
      const isFirst = this.#next === null;
      const fromBottom = scroll.scrollHeight - scroll.scrollTop;
      for (const message of page.messages.reverse()) {
        rows.put({ ...message, wait: null });
        rows.annotate(message.id, this.#notes.get(message.id) ?? null);
      }
      scroll.scrollTop = scroll.scrollHeight - (isFirst ? 0 : fromBottom);
      this.#next = page.hasMore ? page.next : null;
      showWords("thread-error", null);
    } catch (error) {
      if (rows === this.#rows) showWords("thread-error", inWords(error));
    }
    if (rows !== this.#rows) return;
    byId("older").hidden = true;
    this.#isLoading = false;
    this.#markRead();
    this.#scrolled(); // what was loaded may not fill the page
  }

  #scrolled() {
    if (this.#isAtEnd()) byId("newer").hidden = true;
    const isAtStart = byId("scroll").scrollTop < NEAR;
    if (isAtStart && this.#next !== null && !this.#isLoading) void this.#load();
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = byId("scroll");
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  #scrollDown() {
    byId("scroll").scrollTop = byId("scroll").scrollHeight;
    byId("newer").hidden = true;
  }

  #follow(shallFollow, isNew) {
    if (shallFollow) this.#scrollDown();
    else if (isNew) byId("newer").hidden = false;
  }

  #markRead() {
    if (this.contact === null || !this.#rows || document.visibilityState !== "visible") return;
    const [contact, rows, position] = [this.contact, this.#rows, this.#rows.newestUnread];
    if (!position || contact === this.client.userId) {
      this.listener.read(contact);
      return;
    }
    rows.markRead(position, new Date().toISOString());
    this.listener.read(contact);
    // Without an answer they stay unread on the server; the next message tries again.
    this.client.markRead(contact, position).catch(() => {});
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  }

  async #submit(event) {
    event.preventDefault();
    const [contact, text] = [this.contact, byId("text").value.trim()];
    if (!text || contact === null) return;
    byId("text").value = "";
    byId("text").focus();
    this.#fit();
    this.#stopTyping();
    try {
      const id = await this.client.send(contact, text);
      showWords("thread-error", null);
      this.#sent(id, contact, text);
    } catch (error) {
      if (contact !== this.contact) return toast(inWords(error));
      showWords("thread-error", inWords(error));
      if (!byId("text").value) byId("text").value = text;
      this.#fit();
    }
  }

  /** It is in the outbox; the server may have been quicker than this. */
  #sent(id, contact, text) {
    if (contact === this.contact && this.#rows.get(id)) return;
    const message = { contact, isMine: true, type: "text", body: text, sentAt: Date.now() };
    this.#outgoing.set(id, message);
    if (contact !== this.contact) return;
    this.#rows.put({ id, ...message });
    this.#scrollDown();
  }

  #typed() {
    this.#fit();
    if (!byId("text").value) return this.#stopTyping();
    clearTimeout(this.#typingTimer);
    this.#typingTimer = setTimeout(() => this.#stopTyping(), TYPING_FOR_MS);
    if (Date.now() - this.#typedAt < TYPING_EVERY_MS) return;
    this.#typedAt = Date.now();
    if (this.contact !== this.client.userId) this.client.typing(this.contact);
  }

  #stopTyping() {
    clearTimeout(this.#typingTimer);
    if (!this.#typedAt) return;
    this.#typedAt = 0;
    if (this.contact !== this.client.userId) this.client.typing(this.contact, false);
  }

  /** As many lines as the text has, up to the height that the style allows. */
  #fit() {
    const text = byId("text");
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  }
}
