/**
 * What goes wrong, as one tree: everything here is an `E2EError`, with a `code` for programs and a
 * text that says what to do. Neither has cleartext, keys or tokens in it.
 *
 *     E2EError           also itself: "too_long", "backup_exists", "other_user"
 *     ├── Unsupported    this browser or page cannot do it (`code` "unsupported")
 *     ├── Unreadable     an envelope that does not open; `code` says at which check
 *     ├── Refused        the server's answer: `code`, `status`, `retryAfter`, all of its `body`
 *     ├── Offline        there was no answer ("offline")
 *     ├── NoKey          someone has no key ("no_key"), or mine is not here ("own_key_missing")
 *     └── BadCode        a recovery code with a mistake, or of another backup ("bad_code")
 */

export class E2EError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = new.target.name;
    this.code = code;
  }
}

export class Unsupported extends E2EError {
  /** @param {string} message */
  constructor(message) {
    super("unsupported", message);
  }
}

/**
 * `code` names the check of docs/crypto.md 2 that failed: `malformed`, `suite`, `message_id`,
 * `not_for_me`, `unknown_key`, `wrap`, `payload`, `padding`, `plaintext`.
 */
export class Unreadable extends E2EError {
  /** @param {string} code */
  constructor(code) {
    super(code, `The envelope does not open: ${code}.`);
  }
}

/**
 * @typedef {object} ErrorBody
 * @property {string} code
 * @property {string} [message]
 * @property {number | null} [retry_after] seconds
 * @property {number} [version] of a backup that is newer
 * @property {DirectoryKey} [key] the one that counts, of a `stale_key`
 */

/**
 * @typedef {object} DirectoryKey
 * @property {string} user_id
 * @property {string | null} public_key
 * @property {number} [key_version]
 * @property {string | null} [updated_at]
 */

export class Refused extends E2EError {
  /**
   * @param {ErrorBody} body
   * @param {number} [status] of HTTP; 0 for an `error` frame
   */
  constructor(body, status = 0) {
    super(body.code, body.message ?? "The server refused.");
    this.body = body;
    this.status = status;
    /** Seconds, or null when the server did not say. */
    this.retryAfter = body.retry_after ?? null;
  }
}

export class Offline extends E2EError {
  constructor() {
    super("offline", "The server did not answer. Try again when there is a connection.");
  }
}

export class NoKey extends E2EError {
  /**
   * @param {"no_key" | "own_key_missing"} code
   * @param {string} message
   */
  constructor(code, message) {
    super(code, message);
  }
}

export class BadCode extends E2EError {
  /** @param {string} message */
  constructor(message) {
    super("bad_code", message);
  }
}
