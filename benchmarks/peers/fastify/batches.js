// Group commit: while batches are being committed, the next one gathers.

export class Batches {
  #write
  #limit
  #writers
  #waiting = []
  #writing = 0
  #isScheduled = false
  #newest = Promise.resolve()

  /**
   * `write(batch, previous)` gets at most `limit` items, at most `writers` times at once, and never
   * fails. `previous` is the promise of the batch before: waiting for it keeps the order.
   */
  constructor (write, { limit, writers }) {
    this.#write = write
    this.#limit = limit
    this.#writers = writers
  }

  add (item) {
    this.#waiting.push(item)
    this.#schedule()
  }

  // After all sockets that can be read now have been read.
  #schedule () {
    if (this.#isScheduled || this.#writing === this.#writers || this.#waiting.length === 0) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#run()
    })
  }

  async #run () {
    this.#writing++
    this.#newest = this.#write(this.#waiting.splice(0, this.#limit), this.#newest)
    this.#schedule()
    await this.#newest
    this.#writing--
    this.#schedule()
  }
}
