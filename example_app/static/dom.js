/**
 * The little that the views share: elements by id, new elements, and what is said to the user.
 *
 * Text gets into the page as text only; nothing here, or anywhere, makes markup of a string.
 */

const TOAST_MS = 8000;
let toastTimer = 0;

/** @param {string} id */
export function byId(id) {
  return /** @type {any} */ (document.getElementById(id));
}

/**
 * A new element.
 *
 * @param {string} name
 * @param {Record<string, string | boolean | null | undefined>} attributes those that are false,
 *     null or undefined are left out
 * @param {...(Node | string | null)} children
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(attribute, "");
    else if (typeof value === "string") element.setAttribute(attribute, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Show one of the whole-page views, and no other. */
export function showView(id) {
  for (const view of ["login", "opening", "restore", "chat"]) byId(view).hidden = view !== id;
}

/**
 * Put words where they are shown, or hide the place when there are none.
 *
 * @param {string} id
 * @param {string | null} words
 */
export function showWords(id, words) {
  byId(id).textContent = words ?? "";
  byId(id).hidden = !words;
}

/** Say something to those who hear the page. */
export function announce(text) {
  byId("live").textContent = text;
}

/** Tell of something that went wrong, wherever the user is. */
export function toast(text) {
  showWords("toast", text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => showWords("toast", null), TOAST_MS);
}

/** A round letter in one of a few colours, always the same for a name. */
export function paintAvatar(element, name) {
  element.textContent = ([...name][0] ?? "?").toUpperCase();
  element.dataset.tone = String([...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6);
  return element;
}

/** Focus follows into a dialog, and comes back by itself when it closes. */
export function openDialog(id) {
  const dialog = byId(id);
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("h2").focus();
}

/**
 * Focus a field, or a heading where the field would bring up a keyboard over half of the page.
 *
 * @param {string} field
 * @param {string} heading
 */
export function focusField(field, heading) {
  byId(matchMedia("(pointer: coarse)").matches ? heading : field).focus();
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** @param {Date} date */
export function clock(date) {
  return CLOCK.format(date);
}

/** @param {Date} date */
export function day(date) {
  return isToday(date) ? "Today" : DAY.format(date);
}

/** @param {Date} date */
export function shortTime(date) {
  return isToday(date) ? clock(date) : SHORT_DAY.format(date);
}

function isToday(date) {
  return date.toDateString() === new Date().toDateString();
}
