import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Connection } from "../../flask_e2emsg/static/connection.js";
import { Rest } from "../../flask_e2emsg/static/rest.js";

const HELLO = { type: "hello", epoch: "e", head: 0, after: 0, reset: false, heartbeat: 20 };

/** A WebSocket that the test plays the server of. */
class FakeSocket {
  static OPEN = 1;
  static all = [];
  /** The close codes with which the next ones end at once, in order. */
  static fates = [];

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    this.sent = [];
    this.readyState = FakeSocket.OPEN;
    FakeSocket.all.push(this);
    const fate = FakeSocket.fates.shift();
    setImmediate(() => (fate ? this.onclose?.({ code: fate }) : this.hear(HELLO)));
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {}

  hear(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

let tokens, calls, frames, downs, connection;

beforeEach(() => {
  [tokens, calls, frames, downs] = [0, [], [], []];
  [FakeSocket.all, FakeSocket.fates] = [[], []];
  globalThis.WebSocket = FakeSocket;
  mock.method(Math, "random", () => 0.001);
  mock.method(globalThis, "fetch", async (url, { headers }) => {
    calls.push({ path: url.pathname, token: headers.Authorization });
    return Response.json({ epoch: "e", head: 0, reset: false, entries: [] });
  });
  const rest = new Rest(new URL("http://host/api/"), async () => `token ${++tokens}`);
  connection = new Connection(rest, {
    cursor: async () => ({ epoch: "e", seq: 7 }),
    frame: (frame) => frames.push(frame),
    down: (end) => downs.push(end),
  });
});

afterEach(() => {
  connection.close();
  mock.restoreAll();
});

async function until(condition) {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, condition.toString());
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test("it connects with its cursor, and the token in a subprotocol", async () => {
  void connection.run();
  await until(() => frames.length);
  const [socket] = FakeSocket.all;
  assert.equal(socket.url.href, "ws://host/api/ws?cursor=e%3A7");
  assert.deepEqual(socket.protocols, ["e2emsg.v1", "bearer.token 1"]);
});

test("a lost connection is made again", async () => {
  void connection.run();
  await until(() => frames.length);
  FakeSocket.all[0].onclose({ code: 1006 });
  await until(() => frames.length === 2);
  assert.deepEqual(downs, [{ code: 1006, isFinal: false }]);
  assert.equal(tokens, 1);
});

test("4401 brings a new token", async () => {
  void connection.run();
  await until(() => frames.length);
  FakeSocket.all[0].onclose({ code: 4401 });
  await until(() => frames.length === 2);
  assert.deepEqual(FakeSocket.all[1].protocols, ["e2emsg.v1", "bearer.token 2"]);
});

test("4403 is final", async () => {
  const run = connection.run();
  await until(() => frames.length);
  FakeSocket.all[0].onclose({ code: 4403 });
  await run;
  assert.deepEqual(downs, [{ code: 4403, isFinal: true }]);
  assert.equal(FakeSocket.all.length, 1);
});

test("a token that is about to end is refreshed", async () => {
  void connection.run();
  await until(() => frames.length);
  FakeSocket.all[0].hear({ type: "expiring" });
  await until(() => FakeSocket.all[0].sent.length);
  assert.deepEqual(FakeSocket.all[0].sent, [{ type: "refresh", token: "token 2" }]);
});

test("sockets that fail while REST answers are blocked: it polls", async () => {
  FakeSocket.fates = [1006, 1006];
  void connection.run();
  await until(() => frames.length >= 2);
  assert.deepEqual(
    frames.slice(0, 2).map((frame) => frame.type),
    ["hello", "caught_up"],
  );
  assert.equal(FakeSocket.all.length, 2);
  assert.deepEqual(
    calls.slice(0, 3).map((call) => call.path),
    ["/api/session", "/api/session", "/api/sync"],
  );
});

test("sockets that fail while nothing answers are tried again", async () => {
  FakeSocket.fates = [1006, 1006, 1006];
  fetch.mock.mockImplementation(async () => {
    throw new TypeError("no network");
  });
  void connection.run();
  await until(() => frames.length);
  assert.equal(FakeSocket.all.length, 4);
});

test("a send without an answer ends with its connection", async () => {
  void connection.run();
  await until(() => frames.length);
  const sending = connection.link.send({ id: "1", to: "bob", encrypted_content: "AA" });
  FakeSocket.all[0].onclose({ code: 1011 });
  await assert.rejects(sending, { code: "offline" });
});

test("a send is settled by its answer or its error", async () => {
  void connection.run();
  await until(() => frames.length);
  const [socket] = FakeSocket.all;
  const sends = ["1", "2"].map((id) => connection.link.send({ id, to: "b", encrypted_content: "" }));
  socket.hear({ type: "accepted", id: "1", seq: 9, created_at: "now", duplicate: false });
  socket.hear({ type: "error", ref: "2", code: "rate_limited", retry_after: 3, message: "wait" });
  assert.deepEqual(await sends[0], { seq: 9, created_at: "now" });
  await assert.rejects(sends[1], { code: "rate_limited", retryAfter: 3 });
});
