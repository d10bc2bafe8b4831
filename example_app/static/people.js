/**
 * Names for user ids. Messaging knows ids only; usernames are the example app's.
 */

const AT_ONCE = 100;

export class People {
  #names = new Map();

  /** @param {import("./account.js").Account} account */
  constructor(account) {
    this.account = account;
    this.#names.set(account.userId, account.username);
  }

  /** The name of somebody whom `load()` or `find()` has brought. */
  nameOf(userId) {
    if (userId === this.account.userId) return `${this.account.username} (you)`;
    return this.#names.get(userId) ?? `User ${userId}`;
  }

  /** Fetch the names of those who are not known yet. Without a connection they stay ids. */
  async load(userIds) {
    const unknown = [...new Set(userIds)].filter((id) => !this.#names.has(id));
    for (let at = 0; at < unknown.length; at += AT_ONCE) {
      const ids = unknown.slice(at, at + AT_ONCE).map(encodeURIComponent).join(",");
      const found = await this.account.get(`users?ids=${ids}`).catch(() => []);
      for (const { user_id, username } of found) this.#names.set(user_id, username);
    }
  }

  /**
   * @param {string} username
   * @returns {Promise<string>} the user id
   */
  async find(username) {
    const found = await this.account.get(`users/${encodeURIComponent(username)}`);
    this.#names.set(found.user_id, found.username);
    return found.user_id;
  }
}
