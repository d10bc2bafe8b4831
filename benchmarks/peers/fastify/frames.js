// What a client may send, checked as a careful developer would.

export const MAX_FRAME_BYTES = 131072

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const BASE64URL = /^[A-Za-z0-9_-]+$/

/** The object that a frame holds, or null. */
export function parse (data) {
  try {
    return JSON.parse(data)
  } catch {
    return null
  }
}

/** Whether it is a `send` that can be stored. */
export function isSend (frame) {
  return typeof frame.id === 'string' && UUID.test(frame.id) &&
    typeof frame.to === 'string' && frame.to.length >= 1 && frame.to.length <= 255 &&
    typeof frame.encrypted_content === 'string' && BASE64URL.test(frame.encrypted_content)
}
