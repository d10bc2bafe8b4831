/**
 * Who is logged in: the access token in memory and in this tab's sessionStorage, and calls with it.
 *
 * A token is exchanged for a fresh one before it ends. When it has ended, `onEnd` is called and the
 * user logs in again; nothing else is lost.
 */

const KEPT = "e2emsg-example-account";
const RENEW_BEFORE_MS = 10 * 60_000;

/** What the example app's own routes refuse; the text is the server's. */
export class HostRefused extends Error {
  constructor(status, { code, message } = {}) {
    super(message ?? "The server failed. Try again later.");
    this.status = status;
    this.code = code === "unauthorized" ? undefined : code;
  }
}

export class Account {
  #renewal = null;

  constructor({ access_token, user_id }, username) {
    this.accessToken = access_token;
    this.userId = user_id;
    this.username = username;
    this.onEnd = () => {};
  }

  /** The account of this tab from before a reload, or null. */
  static kept() {
    const text = sessionStorage.getItem(KEPT);
    if (!text) return null;
    const { username, ...answer } = JSON.parse(text);
    return endOf(answer.access_token) > Date.now() ? new Account(answer, username) : null;
  }

  /** @param {"login" | "register"} what */
  static async enter(what, username, password) {
    const answer = await call("POST", what, { body: { username, password } });
    const account = new Account(answer, username.normalize("NFKC"));
    account.#keep();
    return account;
  }

  /** A valid token; renewed when it is about to end. */
  async token() {
    const left = endOf(this.accessToken) - Date.now();
    if (left > 0 && left < RENEW_BEFORE_MS) {
      this.#renewal ??= this.#renew().finally(() => (this.#renewal = null));
      await this.#renewal.catch(() => {}); // the old one goes on to count
    }
    if (endOf(this.accessToken) <= Date.now()) this.onEnd();
    return this.accessToken;
  }

  /** @param {string} path under /api */
  async get(path) {
    return call("GET", path, { token: await this.token() });
  }

  forget() {
    sessionStorage.removeItem(KEPT);
  }

  async #renew() {
    const answer = await call("POST", "token", { token: this.accessToken });
    this.accessToken = answer.access_token;
    this.#keep();
  }

  #keep() {
    const { accessToken, userId, username } = this;
    const kept = { access_token: accessToken, user_id: userId, username };
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
  }
}

async function call(method, path, { body, token } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(`/api/${path}`, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new HostRefused(response.status, answer.error);
  return answer;
}

/** When a token ends, in milliseconds since 1970. */
function endOf(token) {
  const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return 1000 * JSON.parse(atob(claims)).exp;
}
