/**
 * The chat: logs in, opens the browser client, and connects its events with the views.
 *
 * Everything that is encrypted or opened is the client's work (`/api/static/e2emsg.js`); the page
 * shows what it tells, and keeps no cleartext anywhere.
 */

import { E2EClient } from "/api/static/e2emsg.js";

import { Account } from "./account.js";
import { byId, focusField, openDialog, paintAvatar, showView, showWords, toast } from "./dom.js";
import { ConversationList } from "./list.js";
import { OwnKey } from "./ownkey.js";
import { People } from "./people.js";
import { Safety } from "./safety.js";
import { ServerView } from "./server.js";
import { Thread } from "./thread.js";
import { failureInWords, inWords } from "./words.js";

const NOTICE = "e2emsg-example-notice"; // why the page was loaded anew
const TYPING_SHOWN_MS = 8000;
const NEEDS = "This browser cannot encrypt here: the page needs HTTPS, WebCrypto and Web Locks.";

function begin() {
  byId("login-form").onsubmit = logIn;
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle || !navigator.locks) {
    showLogin(NEEDS);
    return;
  }
  const notice = sessionStorage.getItem(NOTICE);
  sessionStorage.removeItem(NOTICE);
  const account = Account.kept();
  if (account) void enter(account);
  else showLogin(notice);
}

function showLogin(words) {
  showView("login");
  showWords("login-error", words);
  byId("username").focus();
}

async function logIn(event) {
  event.preventDefault();
  const what = event.submitter?.name === "register" ? "register" : "login";
  showWords("login-error", null);
  setBusy(true);
  try {
    const account = await Account.enter(what, byId("username").value, byId("password").value);
    byId("password").value = "";
    await enter(account);
  } catch (error) {
    showLogin(inWords(error));
  } finally {
    setBusy(false);
  }
}

function setBusy(isBusy) {
  byId("login-button").disabled = byId("register-button").disabled = isBusy;
}

/** Open the client for somebody who is logged in. */
async function enter(account) {
  showView("opening");
  try {
    const { userId } = account;
    const client = await E2EClient.open({ url: "/api", userId, token: () => account.token() });
    await new Chat(account, client).begin();
  } catch (error) {
    account.forget();
    showLogin(inWords(error));
  }
}

class Chat {
  #typingTimers = new Map();
  #isBlockedByContact = false;
  #isBlockedByMe = false;

  constructor(account, client) {
    this.account = account;
    this.client = client;
    this.people = new People(account);
    this.list = new ConversationList(client, this.people);
    this.server = new ServerView(account);
    this.safety = new Safety(client, this.people, (isBlocked) => this.#block({ byContact: isBlocked }));
    this.thread = new Thread(client, this.people, {
      read: (contact) => this.list.markRead(contact),
      loaded: () => void this.safety.check(),
    });
    this.ownKey = new OwnKey(client, {
      ready: () => this.#show(),
      logout: () => this.#askToLogOut(),
      block: (isBlocked) => this.#block({ byMe: isBlocked }),
    });
    account.onEnd = () => this.#end("Your login has ended. Log in again.");
    byId("my-name").textContent = account.username;
    paintAvatar(byId("my-avatar"), account.username);
  }

  async begin() {
    this.#listen();
    this.#connectButtons();
    await this.ownKey.begin();
  }

  #listen() {
    const on = (name, listener) => this.client.addEventListener(name, ({ detail }) => listener(detail));
    on("message", (message) => this.#receive(message));
    on("unreadable", (message) => this.#receive(message));
    on("receipt", (receipt) => {
      this.thread.receipt(receipt);
      this.server.refresh();
    });
    on("typing", ({ contact, isActive }) => this.#typing(contact, isActive));
    on("keychanged", (change) => (change.isOwn ? this.ownKey.warn(true) : this.safety.changed(change)));
    on("gap", (detail) => this.thread.chainBreak("gap", detail));
    on("fork", (detail) => this.thread.chainBreak("fork", detail));
    on("refused", (detail) => this.thread.refused(detail));
    on("outbox", (detail) => this.thread.outbox(detail));
    on("failed", (detail) => toast(failureInWords(detail)));
    on("connected", () => this.#connection());
    on("disconnected", ({ isFinal }) => this.#connection(isFinal));
    globalThis.addEventListener("online", () => this.#connection());
    globalThis.addEventListener("offline", () => this.#connection());
    globalThis.addEventListener("hashchange", () => this.#route());
  }

  #connectButtons() {
    byId("add-form").onsubmit = (event) => this.#add(event);
    byId("logout").onclick = () => this.#askToLogOut();
    byId("logout-cancel").onclick = () => byId("logout-dialog").close();
    byId("logout-confirm").onclick = () => this.#logOut();
  }

  /** The key is in order: show the conversations, and the one that the address names. */
  async #show() {
    showView("chat");
    this.#connection();
    await this.list.load().catch((error) => toast(inWords(error)));
    await this.#route();
  }

  async #route() {
    const contact = contactInAddress();
    byId("chat").dataset.view = contact === null ? "list" : "thread";
    this.list.setCurrent(contact);
    this.server.open(contact);
    this.safety.open(contact);
    await this.thread.open(contact);
    if (contact === null) focusField("add", "my-name");
  }

  #receive(message) {
    this.thread.receive(message);
    void this.list.receive(message).then(() => {
      if (message.contact === this.thread.contact && document.visibilityState === "visible") {
        this.list.markRead(message.contact);
      }
    });
    this.server.refresh();
  }

  #typing(contact, isActive) {
    clearTimeout(this.#typingTimers.get(contact));
    this.list.setTyping(contact, isActive);
    this.thread.setTyping(contact, isActive);
    if (!isActive) return;
    this.#typingTimers.set(contact, setTimeout(() => this.#typing(contact, false), TYPING_SHOWN_MS));
  }

  #block({ byContact = this.#isBlockedByContact, byMe = this.#isBlockedByMe }) {
    this.#isBlockedByContact = byContact;
    this.#isBlockedByMe = byMe;
    this.thread.block(byContact || byMe);
  }

  #connection(isFinal = false) {
    const isOn = navigator.onLine && this.client.isConnected;
    const words = isFinal ? "The server does not let you in" : "No connection; messages wait here";
    byId("connection").textContent = isOn ? "Connected" : words;
    byId("connection").dataset.state = isOn ? "on" : "off";
  }

  async #add(event) {
    event.preventDefault();
    showWords("add-error", null);
    try {
      const contact = await this.people.find(byId("add").value.trim());
      byId("add").value = "";
      this.list.add(contact);
      location.hash = `#/${encodeURIComponent(contact)}`;
    } catch (error) {
      showWords("add-error", inWords(error));
      byId("add").focus();
    }
  }

  #askToLogOut() {
    byId("forget").checked = false;
    openDialog("logout-dialog");
  }

  async #logOut() {
    this.account.forget();
    this.client.close();
    if (byId("forget").checked) await deleted(this.client.storeName);
    location.replace(location.pathname); // a new page: nothing of this one stays in memory
  }

  #end(words) {
    this.account.forget();
    this.client.close();
    sessionStorage.setItem(NOTICE, words);
    location.reload();
  }
}

/** The user id after `#/`, or null. */
function contactInAddress() {
  try {
    return decodeURIComponent(location.hash.replace(/^#\/?/, "")) || null;
  } catch {
    return null; // somebody has typed half of an escaped character
  }
}

/** @param {string} name of a database of this browser */
function deleted(name) {
  return new Promise((resolve) => {
    const request = indexedDB.deleteDatabase(name);
    request.onsuccess = request.onerror = request.onblocked = resolve;
  });
}

begin();
