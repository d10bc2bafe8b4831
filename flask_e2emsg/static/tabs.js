/**
 * The tabs of one browser share one identity, one mailbox position and one outbox.
 *
 * One tab leads: it alone holds the socket, takes entries in and sends from the outbox, so each
 * entry is stored, judged and told of once, and the user has one connection. The others seal into
 * the outbox themselves, under a lock for each contact, and hear events over a BroadcastChannel.
 * The lead is a Web Lock: when its tab closes or dies, the browser gives it to the next one.
 */

/** @typedef {{event: string, detail: object} | {ask: string, detail: any}} Note */

/**
 * @typedef {object} TabListener
 * @property {() => Promise<void>} lead works until the client is closed
 * @property {(event: string, detail: object) => void} event of another tab
 * @property {(ask: string, detail: any) => void} ask what the leader shall do
 */

export class Tabs {
  #aborter = new AbortController();
  #channel;
  isLeader = false;

  /**
   * @param {string} name of what the tabs share
   * @param {TabListener} listener
   */
  constructor(name, listener) {
    this.name = name;
    this.listener = listener;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
  }

  /** Lead as soon as no other tab does. */
  start() {
    const options = { signal: this.#aborter.signal };
    navigator.locks
      .request(`${this.name} lead`, options, async () => {
        if (this.#aborter.signal.aborted) return;
        this.isLeader = true;
        await this.listener.lead();
      })
      .catch((error) => {
        if (error?.name !== "AbortError") throw error;
      });
  }

  close() {
    this.#aborter.abort();
    this.#channel.close();
  }

  /**
   * Run `work` while no other tab, and nothing else here, holds the same lock.
   *
   * @template Value
   * @param {string} what
   * @param {() => Promise<Value>} work
   * @returns {Promise<Value>}
   */
  async exclusively(what, work) {
    return await navigator.locks.request(`${this.name} ${what}`, work);
  }

  /**
   * Tell the other tabs what has happened.
   *
   * @param {string} event
   * @param {object} detail
   */
  tell(event, detail) {
    this.#post({ event, detail });
  }

  /**
   * Have the leading tab do something. Without a leader nobody does: the next one begins with
   * everything that waits.
   *
   * @param {string} ask
   * @param {any} [detail]
   */
  ask(ask, detail) {
    if (this.isLeader) this.listener.ask(ask, detail);
    else this.#post({ ask, detail });
  }

  /** @param {Note} note */
  #post(note) {
    if (!this.#aborter.signal.aborted) this.#channel.postMessage(note);
  }

  /** @param {Note} note */
  #hear(note) {
    if ("event" in note) this.listener.event(note.event, note.detail);
    else if (this.isLeader) this.listener.ask(note.ask, note.detail);
  }
}
