import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { WebSocket } from "ws";
import { Client, type ClientError, type ClientOptions, type Message, type StateChange } from "../dist/index.js";
import { Op, encodePacket } from "../dist/packet.js";
import { Mailbox, ScriptedServer, enveloped, packed } from "./scripted-server.js";

const CAPS = { key: "k1", server: "comet-0", heartbeatMs: 60_000 };
const utf8 = new TextEncoder();

/** A server and a client that waits next to nothing between attempts, both gone when the test ends. */
async function pair(t: TestContext, options: Partial<ClientOptions> = {}) {
  const server = await ScriptedServer.start();
  const client = new Client({ server: server.url, webSocket: WebSocket, random: () => 0.01, ...options });
  t.after(async () => {
    client.close();
    await server.stop();
  });
  const messages = new Mailbox<Message>();
  const errors = new Mailbox<ClientError>();
  const states = new Mailbox<StateChange>();
  client.on("message", (message) => messages.put(message));
  client.on("error", (error) => errors.put(error));
  client.on("state", (state) => states.put(state));
  const until = async (wanted: StateChange["state"]) => {
    while (true) {
      const change = await states.take(`state ${wanted}`);
      if (change.state === wanted) return change;
    }
  };
  return { server, client, messages, errors, until };
}

test("auth comes first, with goim's fields and our capabilities", async (t) => {
  const { server, client } = await pair(t, { mid: 7, room: "live://1", accepts: [1000] });
  const online = client.connect();
  const connection = await server.admit(CAPS);
  await online;
  assert.equal(connection.ops[0], Op.Auth);
  assert.deepEqual(connection.token, {
    mid: 7,
    key: "",
    room_id: "live://1",
    platform: "web",
    accepts: [1000],
    caps: ["envelope", "rooms", "move"],
  });
  assert.equal(client.state, "online");
  assert.equal(client.key, "k1");
  assert.deepEqual(client.rooms, ["live://1"]);
});

test("a token that has expired is followed by a newer one", async (t) => {
  let times = 0;
  const auth = async () => {
    times += 1;
    if (times === 2) throw new Error("no token right now");
    return { token: `token-${times}` };
  };
  const { server, client, errors } = await pair(t, { auth });
  const online = client.connect();
  const first = await server.admit(CAPS);
  await online;
  assert.equal(first.token["token"], "token-1");
  first.send(Op.Error, 0, { code: "expired", reason: "the token has expired: come back with a newer one" });
  first.drop();
  const second = await server.admit(CAPS);
  assert.deepEqual([second.token["token"], second.token["key"]], ["token-3", "k1"]);
  assert.equal((await errors.take("the expiry")).code, "expired");
});

test("a token that never comes is given up after the deadline, and asked for again", async (t) => {
  let times = 0;
  const auth = () => (++times === 1 ? new Promise<never>(() => {}) : { token: `token-${times}` });
  const { server, client, errors } = await pair(t, { auth, deadlineMs: 50 });
  void client.connect();
  assert.equal((await errors.take("an error")).code, "timeout");
  assert.equal((await server.admit(CAPS)).token["token"], "token-2");
});

test("a heartbeat follows at once and tells the online count", async (t) => {
  const { server, client } = await pair(t);
  const counted = new Promise((resolve) => client.once("count", resolve));
  void client.connect();
  const connection = await server.accept();
  connection.online = 258;
  const auth = await connection.expect(Op.Auth);
  connection.send(Op.AuthReply, auth.seq, CAPS);
  assert.equal(await counted, 258);
});

test("heartbeats go at a third of the session's timer", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const connection = await server.admit({ ...CAPS, heartbeatMs: 60 });
  const counts = new Mailbox<number>();
  client.on("count", (count) => counts.put(count));
  for (let beat = 0; beat < 4; beat += 1) await counts.take("a heartbeat reply");
  assert.equal(client.state, "online");
  assert.ok(connection.ops.filter((op) => op === Op.Heartbeat).length >= 4);
});

test("two heartbeats without a sign of life lead to a new connection", async (t) => {
  const { server, client, errors } = await pair(t);
  void client.connect();
  const first = await server.accept();
  first.online = undefined;
  const auth = await first.expect(Op.Auth);
  first.send(Op.AuthReply, auth.seq, { ...CAPS, heartbeatMs: 60 });
  assert.equal((await errors.take("an error")).code, "silent");
  await first.closed;
  await server.admit(CAPS);
});

test("a join settles with the server's word, ok or not", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  const joined = client.join("live://1");
  let request = await connection.expect(Op.Join);
  assert.equal(request.text, '["live://1"]');
  connection.send(Op.JoinReply, request.seq, { "live://1": "ok", through: { "0": 12 } });
  await joined;
  const refused = client.join("live://2");
  request = await connection.expect(Op.Join);
  connection.send(Op.JoinReply, request.seq, { "live://2": "limit", through: {} });
  await assert.rejects(refused, { code: "limit", room: "live://2" });
  assert.deepEqual(client.rooms, ["live://1"]);

  const left = client.leave("live://1");
  request = await connection.expect(Op.Leave);
  assert.equal(request.text, '["live://1"]');
  connection.send(Op.LeaveReply, request.seq, { "live://1": "ok", through: {} });
  await left;
  assert.deepEqual(client.rooms, []);
});

test("after a cut it comes back with its key, its accepts and its rooms", async (t) => {
  const { server, client, until } = await pair(t, { room: "live://1", accepts: [1000] });
  void client.connect();
  const first = await server.admit(CAPS);
  const joined = client.join("live://2");
  const subscribed = client.subscribe(1001, 1002);
  const join = await first.expect(Op.Join);
  first.send(Op.JoinReply, join.seq, { "live://2": "ok" });
  const subscribe = await first.expect(Op.Subscribe);
  assert.equal(subscribe.text, "1001,1002");
  first.send(Op.SubscribeReply, subscribe.seq, subscribe.body);
  await Promise.all([joined, subscribed]);
  const unsubscribed = client.unsubscribe(1000);
  const unsubscribe = await first.expect(Op.Unsubscribe);
  first.send(Op.UnsubscribeReply, unsubscribe.seq, unsubscribe.body);
  await unsubscribed;

  first.drop();
  const offline = await until("offline");
  assert.equal(offline.state === "offline" && offline.error.code, "disconnected");
  const second = await server.admit({ ...CAPS, key: "k1" });
  assert.equal(second.token["key"], "k1");
  assert.equal(second.token["room_id"], "live://1");
  assert.deepEqual(second.token["accepts"], [1001, 1002]);
  const rejoin = await second.expect(Op.Join);
  assert.equal(rejoin.text, '["live://2"]');
  assert.equal(client.state, "connecting", "online only when the rooms are back");
  second.send(Op.JoinReply, rejoin.seq, { "live://2": "ok" });
  await until("online");
  assert.deepEqual(client.rooms, ["live://1", "live://2"]);
});

test("a chosen key is kept whatever the server says", async (t) => {
  const { server, client, until } = await pair(t, { key: "mine" });
  void client.connect();
  const first = await server.admit({ ...CAPS, key: "other" });
  await until("online");
  first.drop();
  assert.equal((await server.admit(CAPS)).token["key"], "mine");
});

test("a join under way when the connection breaks settles after the next one", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const first = await server.admit(CAPS);
  const joined = client.join("live://1");
  await first.expect(Op.Join);
  first.drop();
  const second = await server.admit(CAPS);
  const rejoin = await second.expect(Op.Join);
  second.send(Op.JoinReply, rejoin.seq, { "live://1": "ok" });
  await joined;
});

test("a room refused on the way back fails its join and is told as an error", async (t) => {
  const { server, client, errors } = await pair(t);
  const joined = client.join("live://1");
  void client.connect();
  const connection = await server.admit(CAPS);
  const join = await connection.expect(Op.Join);
  connection.send(Op.JoinReply, join.seq, { "live://1": "forbidden" });
  await assert.rejects(joined, { code: "forbidden" });
  assert.equal((await errors.take("an error")).room, "live://1");
  assert.deepEqual(client.rooms, []);
});

test("a room left while its join is under way is left on the server too", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  const joined = client.join("live://1");
  const join = await connection.expect(Op.Join);
  const left = client.leave("live://1");
  const leave = await connection.expect(Op.Leave);
  connection.send(Op.JoinReply, join.seq, { "live://1": "ok" });
  connection.send(Op.LeaveReply, leave.seq, { "live://1": "ok" });
  await Promise.all([joined, left]);
  assert.deepEqual(client.rooms, []);
});

test("merged pushes arrive one by one, in order, with room, op and id", async (t) => {
  const { server, client, messages } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  connection.push(
    enveloped({ room: "live://1", epoch: 9, partition: 2, offset: 5n, op: 1001, body: "m1" }),
    enveloped({ body: '{"n":2}' }),
  );
  const first = await messages.take("the first push");
  assert.deepEqual([first.room, first.op, first.text()], ["live://1", 1001, "m1"]);
  assert.deepEqual(first.id, { epoch: 9, partition: 2, offset: 5n });
  const second = await messages.take("the second push");
  assert.deepEqual([second.room, second.id, second.json()], [undefined, undefined, { n: 2 }]);
});

test("a push right behind the auth reply is not lost", async (t) => {
  const { server, client, messages } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  connection.push(enveloped({ room: "live://1", body: "early" }));
  const message = await messages.take("the push");
  assert.deepEqual([message.room, message.text()], ["live://1", "early"]);
});

test("repeats are dropped, across reconnects too", async (t) => {
  const { server, client, messages } = await pair(t);
  const numbered = (offset: bigint) => enveloped({ epoch: 1, offset, body: `m${offset}` });
  void client.connect();
  const first = await server.admit(CAPS);
  first.push(numbered(1n), numbered(2n), numbered(1n));
  assert.equal((await messages.take("m1")).text(), "m1");
  assert.equal((await messages.take("m2")).text(), "m2");
  first.drop();
  const second = await server.admit(CAPS);
  second.push(numbered(2n), numbered(3n));
  assert.equal((await messages.take("m3")).text(), "m3");
});

test("towards a plain goim server one room at a time is entered with op 12", async (t) => {
  const { server, client, messages, until } = await pair(t, { capabilities: false, room: "live://1" });
  const seen: ClientError[] = [];
  client.on("error", (error) => seen.push(error));
  void client.connect();
  const first = await server.admit();
  assert.equal("caps" in first.token, false);
  await until("online");
  const joined = client.join("live://2");
  const change = await first.expect(Op.ChangeRoom);
  assert.equal(change.text, "live://2");
  first.send(Op.ChangeRoomReply, change.seq, change.body);
  await joined;
  assert.deepEqual(client.rooms, ["live://2"]);
  assert.deepEqual(seen, []);
  // A pusher may use any op, also numbers that are ours: here they mean nothing.
  first.push(packed(1000, "m1"), packed(Op.Message, "m2"), packed(Op.Gap, "m3"));
  first.send(1000, 0, "m4");
  for (const text of ["m1", "m2", "m3", "m4"]) assert.equal((await messages.take(text)).text(), text);

  first.drop();
  const second = await server.admit();
  assert.equal(second.token["room_id"], "live://2");
  await until("online");
  const left = client.leave("live://2");
  const leave = await second.expect(Op.ChangeRoom);
  assert.equal(leave.text, "");
  second.send(Op.ChangeRoomReply, leave.seq, leave.body);
  await left;
});

test("a server that ignores our capabilities gets one room, and the others are told", async (t) => {
  const { server, client, errors, until } = await pair(t);
  const one = client.join("live://1");
  const two = client.join("live://2");
  void client.connect();
  const connection = await server.admit();
  const change = await connection.expect(Op.ChangeRoom);
  assert.equal(change.text, "live://2");
  connection.send(Op.ChangeRoomReply, change.seq, change.body);
  const online = await until("online");
  assert.equal(online.state === "online" && online.capabilities, false);
  await two;
  await assert.rejects(one, { code: "unsupported", room: "live://1" });
  assert.equal((await errors.take("an error")).room, "live://1");
});

test("a gap is told with its ranges", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const told = new Promise((resolve) => client.once("gap", resolve));
  const connection = await server.admit(CAPS);
  const gap = { reason: "slow", dropped: 3, ranges: [{ room: "live://1", partition: 2, from: 7, to: 9 }] };
  connection.send(Op.Gap, 0, gap);
  assert.deepEqual(await told, gap);
});

test("an error before a close is told once and its wait is honoured", async (t) => {
  const { server, client, errors, until } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  await until("online");
  connection.send(Op.Error, 0, { code: "rate", reason: "too many frames", retryAfterMs: 150 });
  const error = await errors.take("an error");
  assert.deepEqual([error.code, error.reason, error.retryAfterMs], ["rate", "too many frames", 150]);
  connection.drop();
  const offline = await until("offline");
  assert.ok(offline.state === "offline" && offline.retryInMs >= 150);
  assert.equal(offline.error, error);
  await server.admit(CAPS);
  await until("online");
});

test("a refused request fails with what the server said", async (t) => {
  const { server, client } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  const joined = client.join("live://1");
  const join = await connection.expect(Op.Join);
  connection.send(Op.Error, join.seq, { code: "rooms", reason: "256 rooms are enough" });
  await assert.rejects(joined, { code: "rooms", reason: "256 rooms are enough" });
  assert.equal(client.state, "online");
});

test("a refused auth is an error, and another attempt follows", async (t) => {
  const { server, client, errors } = await pair(t);
  void client.connect();
  const first = await server.accept();
  const auth = await first.expect(Op.Auth);
  first.send(Op.Error, auth.seq, { code: "auth", reason: "token expired" });
  assert.equal((await errors.take("an error")).reason, "token expired");
  await server.admit(CAPS);
});

test("who was replaced does not throw out its successor", async (t) => {
  const { server, client, until } = await pair(t);
  void client.connect();
  const connection = await server.admit(CAPS);
  connection.send(Op.Error, 0, { code: "replaced", reason: "the key connected again" });
  connection.drop();
  const closed = await until("closed");
  assert.equal(closed.state === "closed" && closed.error.code, "replaced");
});

for (const [what, bytes] of [
  ["a length beyond the frame", new Uint8Array(Buffer.from("00000099001000010000000800000001", "hex"))],
  ["half a header", new Uint8Array(7)],
  ["a raw body that is no packets", encodePacket(Op.Raw, 0, new Uint8Array(5))],
  ["an envelope cut short", encodePacket(Op.Raw, 0, encodePacket(Op.Message, 0, new Uint8Array(3)))],
  ["a gap that is no JSON", encodePacket(Op.Gap, 0, utf8.encode("{"))],
] as const) {
  test(`${what} is an error and a new connection`, async (t) => {
    const { server, client, errors, messages } = await pair(t);
    void client.connect();
    const first = await server.admit(CAPS);
    first.sendBytes(bytes);
    assert.equal((await errors.take("an error")).code, "malformed");
    await first.closed;
    const second = await server.admit(CAPS);
    second.push(enveloped({ body: "still here" }));
    assert.equal((await messages.take("a push")).text(), "still here");
  });
}

for (const [what, op] of [["auth", Op.AuthReply], ["join", Op.JoinReply]] as const) {
  test(`an unreadable ${what} reply is an error and a new connection`, async (t) => {
    const { server, client, errors } = await pair(t);
    void client.connect();
    void client.join("live://1");
    const first = await server.accept();
    const auth = await first.expect(Op.Auth);
    if (op === Op.JoinReply) {
      first.send(Op.AuthReply, auth.seq, CAPS);
      first.send(op, (await first.expect(Op.Join)).seq, "nonsense");
    } else {
      first.send(op, auth.seq, "nonsense");
    }
    assert.equal((await errors.take("an error")).code, "malformed");
    const second = await server.admit(CAPS);
    await second.expect(Op.Join);
  });
}

test("a server that never answers the auth is given up after the deadline", async (t) => {
  const { server, client, errors } = await pair(t, { deadlineMs: 50 });
  void client.connect();
  await server.accept();
  assert.equal((await errors.take("an error")).code, "timeout");
  await server.admit(CAPS);
});

test("an upstream packet settles with its echo", async (t) => {
  const { server, client, until } = await pair(t);
  await assert.rejects(client.send(1000, "early"), { code: "disconnected" });
  void client.connect();
  const connection = await server.admit(CAPS);
  await until("online");
  const sent = client.send(1000, "up");
  const packet = await connection.expect(1000);
  assert.equal(packet.text, "up");
  connection.send(1000, packet.seq, "");
  await sent;
  const lost = client.send(1000, new Uint8Array([1, 2]));
  await connection.expect(1000);
  connection.drop();
  await assert.rejects(lost, { code: "disconnected" });
  assert.throws(() => client.send(Op.Auth, ""), RangeError);
  assert.throws(() => client.send(1000, new Uint8Array(4097)), RangeError);
});

test("closing during connect fails the connect and leaves nothing behind", async (t) => {
  const { server, client } = await pair(t);
  const online = client.connect();
  client.close();
  await assert.rejects(online, { code: "closed" });
  assert.equal(client.state, "closed");
  await assert.rejects(client.connect(), { code: "closed" });
  await assert.rejects(client.join("live://1"), { code: "closed" });
  await server.stop();
});

test("closing before the auth reply closes the socket", async (t) => {
  const { server, client } = await pair(t);
  const online = client.connect();
  const connection = await server.accept();
  await connection.expect(Op.Auth);
  client.close();
  await assert.rejects(online, { code: "closed" });
  await connection.closed;
});

for (const when of ["connecting", "online", "offline", "error"] as const) {
  test(`closing from within a listener of ${when} is the end`, async (t) => {
    const { server, client } = await pair(t, { random: () => 0.9999 });
    const seen: string[] = [];
    client.on("error", () => when === "error" && client.close());
    client.on("state", (change) => {
      seen.push(change.state);
      if (change.state === when && (when !== "connecting" || "url" in change)) client.close();
    });
    const online = client.connect();
    if (when === "connecting") {
      await assert.rejects(online, { code: "closed" });
    } else {
      const connection = await server.admit({ ...CAPS, key: "k" });
      if (when === "online") await connection.closed;
      else {
        await online;
        const closed = new Promise<void>((resolve) => client.on("state", ({ state }) => state === "closed" && resolve()));
        connection.drop();
        await closed;
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(seen.at(-1), "closed");
    assert.equal(client.state, "closed");
  });
}

test("without reconnect the first loss is the end", async (t) => {
  const { server, client, until } = await pair(t, { reconnect: false });
  void client.connect();
  (await server.admit(CAPS)).drop();
  const closed = await until("closed");
  assert.equal(closed.state === "closed" && closed.error.code, "disconnected");
});

test("a wait is cut short by retryNow", async (t) => {
  const { server, client, until } = await pair(t, { random: () => 0.9999 });
  void client.connect();
  const first = await server.admit(CAPS);
  await until("online");
  first.send(Op.Error, 0, { code: "full", reason: "come back tomorrow", retryAfterMs: 86_400_000 });
  first.drop();
  await until("offline");
  client.retryNow();
  await server.admit(CAPS);
  await until("online");
});

test("the node list is asked again for each connection", async (t) => {
  const one = await ScriptedServer.start();
  const two = await ScriptedServer.start();
  const nodes = [one, two];
  const backoff = { max_delay: 1, base_delay: 0.01, factor: 1, jitter: 0 };
  const list = createServer((_, response) => {
    const ws_port = nodes.shift()?.port ?? 1;
    response.end(JSON.stringify({ code: 0, message: "", data: { ws_port, nodes: ["127.0.0.1"], backoff } }));
  });
  await new Promise<void>((resolve) => list.listen(0, "127.0.0.1", resolve));
  const { port } = list.address() as AddressInfo;
  const client = new Client({ server: `http://127.0.0.1:${port}/goim/nodes/weighted`, webSocket: WebSocket });
  t.after(async () => {
    client.close();
    list.close();
    await Promise.all([one.stop(), two.stop()]);
  });
  void client.connect();
  (await one.admit(CAPS)).drop();
  await two.admit(CAPS);
});

test("a missing WebSocket is said in words", () => {
  const original = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  Object.defineProperty(globalThis, "WebSocket", { value: undefined, configurable: true });
  try {
    assert.throws(() => new Client({ server: "ws://127.0.0.1/sub" }), /pass the option webSocket/);
  } finally {
    if (original) Object.defineProperty(globalThis, "WebSocket", original);
    else Reflect.deleteProperty(globalThis, "WebSocket");
  }
});

/** A client of several servers, all gone when the test ends, and a log of what it says. */
async function mover(t: TestContext, count: number) {
  const servers = await Promise.all(Array.from({ length: count }, () => ScriptedServer.start()));
  const server = servers.map((one) => one.url);
  const client = new Client({ server, webSocket: WebSocket, key: "k1", random: () => 0.01 });
  t.after(async () => {
    client.close();
    await Promise.all(servers.map((one) => one.stop()));
  });
  const got = new Mailbox<string>();
  client.on("message", (message) => got.put(message.text()));
  client.on("gap", (gap) => got.put(`gap: ${gap.reason}`));
  const online = new Mailbox<string>();
  client.on("state", (state) => state.state === "online" && online.put(state.server ?? ""));
  const take = async (count: number) => {
    const all: string[] = [];
    while (all.length < count) all.push(await got.take(`what comes after ${all}`));
    return all;
  };
  return { servers: servers as [ScriptedServer, ScriptedServer, ...ScriptedServer[]], client, online, take };
}

/** A push to the room in which these tests are. */
const numbered = (offset: number) =>
  enveloped({ room: "live://2", epoch: 1, partition: 1, offset: BigInt(offset), body: `m${offset}` });

test("told to move it connects elsewhere first, says how far it is given things there, and sees each push once and in order", async (t) => {
  const { servers, client, online, take } = await mover(t, 2);
  const [server, next] = servers;
  void client.connect();
  const old = await server.admit({ ...CAPS, through: {} });
  assert.equal(await online.take("the first server"), "comet-0");
  const joined = client.join("live://2");
  const join = await old.expect(Op.Join);
  old.send(Op.JoinReply, join.seq, { "live://2": "ok", through: {} });
  await joined;

  old.send(Op.Move, 0, { withinMs: 4000, nodes: [] });
  // The one that leaves is the first of its addresses, and takes nobody any more.
  (await server.accept()).drop();
  const there = await next.admit({ ...CAPS, server: "comet-1", through: { "0": 5, "1": 9 } });
  assert.deepEqual([there.token["moving"], there.token["key"]], [true, "k1"]);
  const rejoin = await there.expect(Op.Join);
  there.push(numbered(8), numbered(9));
  there.send(Op.Gap, 0, { reason: "slow", dropped: 1, ranges: [] });
  there.push(numbered(11));
  there.send(Op.JoinReply, rejoin.seq, { "live://2": "ok", through: { "0": 6, "1": 8 } });
  assert.equal(await online.take("the second server"), "comet-1");
  const moved = await old.expect(Op.Move);
  assert.deepEqual(JSON.parse(moved.text), [{ "0": 6, "1": 9 }]);
  old.push(numbered(6), numbered(7), numbered(8));
  assert.deepEqual(await take(3), ["m6", "m7", "m8"]);
  old.send(Op.Move, moved.seq, new Uint8Array());
  await old.closed;
  assert.deepEqual(await take(3), ["m9", "gap: slow", "m11"]);
  there.push(numbered(11), numbered(12));
  assert.deepEqual(await take(1), ["m12"]);
  assert.equal(client.state, "online");
});

test("a server that leaves while a client is moving to it is left, too, once that is done", async (t) => {
  const { servers, client, online, take } = await mover(t, 3);
  const [first, second] = servers;
  const third = servers[2] as ScriptedServer;
  void client.connect();
  const one = await first.admit({ ...CAPS, through: {} });
  await online.take("the first server");
  one.send(Op.Move, 0, { withinMs: 4000, nodes: [] });
  (await first.accept()).drop();
  const two = await second.admit({ ...CAPS, server: "comet-1", through: { "1": 5 } });
  two.send(Op.Move, 0, { withinMs: 4000, nodes: [] });
  two.push(numbered(5));
  const moved = await one.expect(Op.Move);
  one.push(numbered(4));
  assert.deepEqual(await take(1), ["m4"]);
  one.send(Op.Move, moved.seq, new Uint8Array());
  // Who leaves takes nobody any more.
  const refuse = (server: ScriptedServer) => void server.accept().then((again) => (again.drop(), refuse(server)), () => {});
  refuse(first);
  refuse(second);
  const three = await third.admit({ ...CAPS, server: "comet-2", through: { "1": 6 } });
  const again = await two.expect(Op.Move);
  two.send(Op.Move, again.seq, new Uint8Array());
  await two.closed;
  three.push(numbered(6));
  assert.deepEqual(await take(2), ["m5", "m6"]);
  assert.deepEqual([await online.take("the second"), await online.take("the third")], ["comet-1", "comet-2"]);
});

test("who is replaced on the server that it is leaving comes back", async (t) => {
  const { server, client, until } = await pair(t);
  void client.connect();
  const old = await server.admit({ ...CAPS, through: {} });
  await until("online");
  old.send(Op.Move, 0, { withinMs: 4000, nodes: [] });
  // The one that was to leave serves again.
  const again = await server.accept();
  await again.expect(Op.Auth);
  old.send(Op.Error, 0, { code: "replaced", reason: "the same key connected again" });
  old.drop();
  await again.closed;
  await server.admit(CAPS);
  await until("online");
  assert.equal(client.state, "online");
});

test("who finds no other server in time stays until it is closed, and comes back then", async (t) => {
  const { server, client, until } = await pair(t);
  void client.connect();
  const old = await server.admit({ ...CAPS, through: {} });
  await until("online");
  old.send(Op.Move, 0, { withinMs: 150, nodes: [] });
  const refused = await server.accept();
  refused.drop();
  old.push(enveloped({ body: "still" }));
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(client.state, "online");
  old.drop();
  await until("offline");
  // Of those tries to move that are still on their way, none may be taken for the one that comes back.
  while (true) {
    const back = await server.accept();
    const auth = await back.expect(Op.Auth).catch(() => undefined);
    if (!auth || JSON.parse(auth.text).moving) continue;
    back.send(Op.AuthReply, auth.seq, CAPS);
    break;
  }
  await until("online");
});
