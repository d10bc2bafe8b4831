/** The types of `e2emsg.js`. */

/** What a page is told, by the name of its event; it is the event's `detail`. */
export interface E2EEvents {
  /** A message, mine or a contact's, is on the server and on the disk; each is told of once. */
  message: Message;
  /** Messages of mine were delivered or read. */
  receipt: { kind: "delivered" | "read"; by: string; ids: string[]; at: string };
  /** A contact types, or has stopped. */
  typing: { contact: string; conversationId: string | null; isActive: boolean };
  /** What the host's own code has sent. */
  event: { name: string; data: unknown };
  /** Another key: nothing is sent to this contact, or nothing at all, until the user acts. */
  keychanged: KeyChange;
  /** Something before this message has not arrived. The message itself is told of as well. */
  gap: ChainBreak;
  /** Two devices wrote at once, or somebody left out and put in. */
  fork: ChainBreak;
  /** A message that does not open; one under a key that is accepted later comes as `message`. */
  unreadable: Message;
  /** The server refused a message for good. */
  refused: { id: string; contact: string; code: string };
  /** What has become of a message to send. */
  outbox: {
    id: string;
    contact: string;
    /** `held`: until the contact's new key is accepted; `waiting`: it is tried again later. */
    state: "queued" | "held" | "waiting" | "accepted";
    code?: string;
  };
  connected: { transport?: "socket" | "polling" };
  /** `isFinal`: the server forbids it, and it is not tried again. */
  disconnected: { code: number; isFinal: boolean };
  /** Something went wrong that nobody waited for, as a full disk. */
  failed: { name: string; code: string | null };
}

export interface KeyChange {
  contact: string;
  /** The directory has another key than this device for the user itself. */
  isOwn: boolean;
  /** 60 digits, of the new key. */
  safetyNumber: string | null;
  kid: string | null;
  pinnedKid: string;
}

export interface ChainBreak {
  id: string;
  contact: string;
  isMine: boolean;
  n: number;
}

export interface Message {
  id: string;
  /** The other party; the user itself, for what it wrote to itself. */
  contact: string;
  sender: string;
  recipient: string;
  isMine: boolean;
  conversationId: string | null;
  /** In the user's mailbox; null while it is not known. */
  position: number | null;
  /** When the server stored it. */
  createdAt: string | null;
  expiresAt: string | null;
  deliveredAt: string | null;
  readAt: string | null;
  /** Of the sender's key, in hexadecimal digits. */
  kid: string | null;
  /** Why it does not open: `unknown_key`, `not_for_me`, `wrap` and so on. Null when it does. */
  unreadable: string | null;
  /** `text`, `reply`, `edit`, `delete`, `reaction`, or one from the future: show it as such. */
  type: string | null;
  body: string | null;
  /** The id of the message that a reply, edit, deletion or reaction is about. */
  target: string | null;
  /** Milliseconds since 1970, by the sender's clock. */
  sentAt: number | null;
}

export interface Conversation {
  contact: string;
  conversationId: string | null;
  last: Message;
  unread: number;
}

export interface HistoryPage {
  /** Newest first. */
  messages: Message[];
  /** The `before` of the next page. */
  next: number | null;
  hasMore: boolean;
}

export interface SafetyNumber {
  digits: string;
  /** The digits in groups of five. */
  groups: string;
  /** What a QR code says. */
  qrText: string;
  /** It is that of a key which waits to be accepted. */
  isChanged: boolean;
}

/**
 * `missing`: the user has a key, and this device has not; `foreign`: the directory has another key
 * than this device, and nothing is sent.
 */
export type KeyState = "ready" | "missing" | "foreign";

export interface OpenOptions {
  /** The server's prefix, as `/api`. */
  url: string;
  userId: string;
  /** A valid access token, whenever it is asked; null where the host keeps tokens in cookies. */
  token: () => Promise<string | null> | string | null;
  /** Of this browser's database; by default made of `url` and `userId`. */
  storeName?: string;
}

export interface SendOptions {
  /** `text` by default. */
  type?: string;
  target?: string;
  conversationId?: string;
  /** Seconds. */
  expiresIn?: number;
}

export interface PageOptions {
  before?: number | null;
  limit?: number;
}

export class E2EClient extends EventTarget {
  static open(options: OpenOptions): Promise<E2EClient>;
  private constructor();

  readonly userId: string;
  readonly storeName: string;
  readonly isConnected: boolean;

  keyState(): Promise<KeyState>;
  /** Resolves with the message id, once the message is in the durable outbox. */
  send(contact: string, text: string, options?: SendOptions): Promise<string>;
  history(contact: string, page?: PageOptions): Promise<HistoryPage>;
  conversations(page?: PageOptions): Promise<Conversation[]>;
  /** Everything from a contact up to the message at this position is read. */
  markRead(contact: string, position: number): Promise<void>;
  typing(contact: string, isActive?: boolean): void;
  safetyNumber(contact: string): Promise<SafetyNumber>;
  /** With `digits`, only the key whose safety number they are. */
  acceptKey(contact: string, digits?: string): Promise<void>;
  /** Resolves with the recovery code: show it once, keep it nowhere. */
  makeBackup(options?: { oldCode?: string; replace?: boolean }): Promise<string>;
  restore(code: string): Promise<KeyState>;
  /** Publish this device's key, or a new one, in place of the directory's. */
  replaceKey(): Promise<KeyState>;
  close(): void;

  addEventListener<Name extends keyof E2EEvents>(
    name: Name,
    listener: ((event: CustomEvent<E2EEvents[Name]>) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    name: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Name extends keyof E2EEvents>(
    name: Name,
    listener: ((event: CustomEvent<E2EEvents[Name]>) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    name: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** `code` is for programs, the text for people; neither has cleartext, keys or tokens in it. */
export class E2EError extends Error {
  constructor(code: string, message: string);
  readonly code: string;
}
/** This browser or page cannot do it, and the text says why. */
export class Unsupported extends E2EError {}
export class Unreadable extends E2EError {}
/** The server's answer. */
export class Refused extends E2EError {
  readonly status: number;
  /** Seconds. */
  readonly retryAfter: number | null;
  readonly body: { code: string; [member: string]: unknown };
}
export class Offline extends E2EError {}
export class NoKey extends E2EError {}
export class BadCode extends E2EError {}
