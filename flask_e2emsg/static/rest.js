/**
 * Calls of the server's REST half, with the access token of the moment.
 *
 * A call resolves with the JSON of the answer, or throws `Refused` (the server said no) or
 * `Offline` (nobody said anything).
 */

import { Offline, Refused } from "./errors.js";

/** @typedef {() => Promise<string | null> | string | null} TokenSource */

const UNAUTHORIZED = 401;
const NO_CONTENT = 204;

export class Rest {
  #source;
  /** @type {string | null} */
  #token = null;

  /**
   * @param {URL} base with a slash at the end
   * @param {TokenSource} source
   */
  constructor(base, source) {
    this.base = base;
    this.#source = source;
  }

  /** @returns {Promise<string | null>} null where the host keeps its tokens in cookies */
  async token() {
    return (this.#token ??= await this.#source());
  }

  /** The token has ended, or is about to: the next call asks for another. */
  forgetToken() {
    this.#token = null;
  }

  /** @param {string} path */
  get(path) {
    return this.call("GET", path);
  }

  /**
   * @param {string} path
   * @param {unknown} [body]
   */
  post(path, body = {}) {
    return this.call("POST", path, { body });
  }

  /**
   * @param {string} method
   * @param {string} path under the prefix, without a slash at its beginning
   * @param {{body?: unknown, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async call(method, path, options = {}) {
    const response = await this.#fetch(method, path, options);
    if (response.status !== UNAUTHORIZED) return read(response);
    this.forgetToken();
    return read(await this.#fetch(method, path, options));
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{body?: unknown, signal?: AbortSignal}} options
   */
  async #fetch(method, path, { body, signal }) {
    const token = await this.token();
    /** @type {Record<string, string>} */
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const text = body === undefined ? undefined : JSON.stringify(body);
    try {
      return await fetch(new URL(path, this.base), { method, headers, body: text, signal });
    } catch {
      throw new Offline();
    }
  }
}

/**
 * @param {string} id of a user or a conversation, any characters
 * @returns {string} one segment of a path
 */
export function segment(id) {
  return encodeURIComponent(id);
}

/**
 * @param {Record<string, string | number | null | undefined>} members with a value, or left out
 * @returns {string} with its question mark, or empty
 */
export function query(members) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(members)) {
    if (value !== null && value !== undefined) given.set(name, `${value}`);
  }
  return given.size ? `?${given}` : "";
}

/** @param {Response} response */
async function read(response) {
  if (response.status === NO_CONTENT) return null;
  let body;
  try {
    body = await response.json();
  } catch {
    // A proxy's page, or half an answer.
    if (response.ok || response.status >= 500) throw new Offline();
  }
  if (response.ok) return body;
  const error = body?.error ?? { code: "internal" };
  const seconds = Number(response.headers.get("Retry-After"));
  throw new Refused({ retry_after: seconds || null, ...error }, response.status);
}
