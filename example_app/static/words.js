/**
 * What happened, in words: of errors, of messages that were refused or do not open, of previews.
 */

const NO_NETWORK = "The server does not answer. Check your connection and try again.";

/** By the code of an error. */
const ERRORS = {
  offline: NO_NETWORK,
  no_key: "This person has not opened the chat yet, so there is no key to encrypt for.",
  own_key_missing: "Your key is not in this browser.",
  too_long: "This message is too long. Send it in parts.",
  unauthorized: "Your login has ended. Log in again.",
};

/** By the code with which the server refuses a message for good. */
const REFUSALS = {
  unknown_recipient: "this person cannot receive messages from you",
  forbidden: "this person cannot receive messages from you",
  too_large: "it is too long",
  id_conflict: "it was sent before with other content",
};

/** By the code for which a message waits. */
const WAITS = {
  rate_limited: "you send too fast, it is tried again soon",
  quota_exceeded: "too much waits for this person already, it is tried again later",
  stale_key: "a key has changed",
};

/** @param {any} error of the client, of `fetch`, or of anything else */
export function inWords(error) {
  if (ERRORS[error?.code]) return ERRORS[error.code];
  if (error instanceof TypeError) return NO_NETWORK;
  return error?.message || "Something went wrong. Try again.";
}

/** A failure that nobody waited for. */
export function failureInWords({ name }) {
  if (name === "QuotaExceededError") return "This browser has no room left to store messages.";
  return `Something went wrong (${name}). Reload the page if messages do not arrive.`;
}

/** @param {string} code */
export function refusalInWords(code) {
  return `Not sent: ${REFUSALS[code] ?? "the server refused it"}.`;
}

/**
 * @param {string} state `held` or `waiting`
 * @param {string} [code]
 */
export function waitInWords(state, code) {
  if (state === "held") return "Waits until you accept the new key.";
  return `Waits: ${WAITS[code] ?? "it is sent when the server takes it"}.`;
}

/**
 * @param {import("/api/static/e2emsg.js").Message} message
 * @param {string} name of its sender
 */
export function unreadableInWords({ unreadable, isMine }, name) {
  if (unreadable === "unknown_key" && !isMine) {
    return `Sealed under a key of ${name} that you have not accepted.`;
  }
  if (unreadable === "not_for_me") return "Sealed for another key of yours, which is not here.";
  if (unreadable === "unknown_key") return "Sealed under another key of yours, which is not here.";
  return "This message does not open. It was damaged, or somebody has changed it.";
}

/** What a message says, as one text; `sender` is "You" or a name. */
export function bodyInWords(message, sender) {
  const { type, body } = message;
  if (message.unreadable) return unreadableInWords(message, sender);
  if (type === "text" || type === "reply") return body ?? "";
  if (type === "edit") return `${sender} changed a message to: ${body}`;
  if (type === "delete") return `${sender} deleted a message.`;
  if (type === "reaction") return body ? `${sender} reacted: ${body}` : `${sender} took a reaction back.`;
  return `A message of a kind that this page does not know: ${type}.`;
}

/** One line for the list. */
export function previewInWords(message, sender) {
  const text = bodyInWords(message, sender).replace(/\s+/g, " ");
  const isSaid = message.type === "text" || message.type === "reply";
  return message.isMine && isSaid ? `You: ${text}` : text;
}
