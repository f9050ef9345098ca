import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, DEFAULT_RULE, backoffRule } from "../dist/backoff.js";
import { Emitter } from "../dist/emitter.js";
import { type AuthFields, type ClientOptions, encodeToken } from "../dist/options.js";
import { RepeatFilter } from "../dist/repeats.js";
import { chunk, readResults } from "../dist/rooms.js";

const json = (value: object) => new TextEncoder().encode(JSON.stringify(value));

/** A small generator with a seed, so that a failure repeats itself. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("a push is new once and a repeat ever after, whatever the order", () => {
  const filter = new RepeatFilter();
  const at = (offset: bigint) => ({ epoch: 1, partition: 0, offset });
  assert.deepEqual([5n, 3n, 5n, 4n, 3n].map((offset) => filter.seen(at(offset))), [false, false, true, false, true]);
});

test("epoch and partition tell pushes apart; epoch 0 is never a repeat", () => {
  const filter = new RepeatFilter();
  assert.equal(filter.seen({ epoch: 1, partition: 0, offset: 1n }), false);
  assert.equal(filter.seen({ epoch: 2, partition: 0, offset: 1n }), false);
  assert.equal(filter.seen({ epoch: 1, partition: 1, offset: 1n }), false);
  assert.equal(filter.seen({ epoch: 0, partition: 0, offset: 1n }), false);
  assert.equal(filter.seen({ epoch: 0, partition: 0, offset: 1n }), false);
});

test("the filter remembers half its capacity and forgets beyond it", () => {
  const filter = new RepeatFilter(100);
  const at = (offset: number) => ({ epoch: 1, partition: 0, offset: BigInt(offset) });
  for (let offset = 0; offset < 1000; offset += 1) {
    assert.equal(filter.seen(at(offset)), false);
    if (offset >= 50) assert.equal(filter.seen(at(offset - 49)), true);
  }
  assert.equal(filter.seen(at(0)), false);
});

test("waits grow up to the greatest delay and are spread from zero on", () => {
  const backoff = new Backoff(seeded(7));
  backoff.rule = { max_delay: 300, base_delay: 3, factor: 1.8, jitter: 0.3 };
  const waits = Array.from({ length: 2000 }, (_, attempt) => {
    const wait = backoff.next();
    assert.ok(wait >= 0 && wait <= Math.min(300, 3 * 1.8 ** attempt * 1.3) * 1000, `wait ${attempt} was ${wait}`);
    return wait;
  });
  const late = waits.slice(20);
  const mean = late.reduce((sum, wait) => sum + wait, 0) / late.length;
  assert.ok(Math.min(...late) < 15_000 && Math.max(...late) > 285_000 && Math.abs(mean - 150_000) < 15_000);
});

test("a session that lasted brings the short waits back, and retryAfterMs is a floor", () => {
  const backoff = new Backoff(() => 0.5);
  backoff.rule = { max_delay: 100, base_delay: 2, factor: 2, jitter: 0 };
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [1000, 2000, 4000]);
  backoff.reset();
  assert.equal(backoff.next(), 1000);
  assert.equal(backoff.next(5000), 7000);
});

test("a node list's back-off is taken field by field, nonsense is not", () => {
  assert.deepEqual(backoffRule({ max_delay: 300, base_delay: -1, factor: "x", jitter: 0 }), {
    ...DEFAULT_RULE,
    max_delay: 300,
    jitter: 0,
  });
  assert.deepEqual(backoffRule(null), DEFAULT_RULE);
});

test("the token has goim's fields and our capabilities, and takes any int64", () => {
  const now = { key: undefined, room: "live://1", accepts: [1000] };
  const text = ({ auth, ...options }: Partial<ClientOptions> & { auth?: AuthFields }) =>
    new TextDecoder().decode(encodeToken({ server: "", ...options }, { ...now, auth }));
  assert.equal(
    text({ mid: 9223372036854775807n }),
    '{"mid":9223372036854775807,"key":"","room_id":"live://1","platform":"web","accepts":[1000],"caps":["envelope","rooms","move"]}',
  );
  assert.equal(
    text({ capabilities: false, platform: "ios", auth: { token: "t" } }),
    '{"mid":0,"token":"t","key":"","room_id":"live://1","platform":"ios","accepts":[1000]}',
  );
  assert.throws(() => text({ auth: { token: "x".repeat(4096) } }), /takes \d+ bytes/);
});

test("a long list of rooms is cut into packets the server takes, none lost", () => {
  const rooms = Array.from({ length: 256 }, (_, n) => `live://${"é".repeat(40)}${n}`);
  const parts = chunk(rooms);
  assert.ok(parts.length > 1);
  assert.deepEqual(parts.flatMap((part) => part.rooms), rooms);
  for (const part of parts) {
    assert.ok(part.bytes.length <= 4096);
    assert.deepEqual(JSON.parse(new TextDecoder().decode(part.bytes)), part.rooms);
  }
  assert.deepEqual(chunk([]), []);
});

test("a room is in when the server says ok and refused when it says anything else or nothing", () => {
  const results = readResults(json({ a: "ok", b: "limit", through: { "0": 5 } }), ["a", "b", "c", "toString"]);
  assert.equal(results.get("a"), undefined);
  assert.equal(results.get("b")?.code, "limit");
  assert.equal(results.get("b")?.room, "b");
  assert.equal(results.get("c")?.code, "unanswered");
  assert.equal(results.get("toString")?.code, "unanswered");
});

test("a listener that throws harms no other, and the error surfaces", (t) => {
  class Bell extends Emitter<{ ring: number }> {
    ring(): void {
      this.emit("ring", 1);
    }
  }
  const later = t.mock.method(globalThis, "queueMicrotask", () => {});
  const bell = new Bell();
  const heard: string[] = [];
  bell.on("ring", () => {
    throw new Error("broken listener");
  });
  const off = bell.on("ring", () => heard.push("on"));
  bell.once("ring", () => heard.push("once"));
  bell.ring();
  assert.deepEqual(heard, ["on", "once"]);
  assert.throws(later.mock.calls[0]?.arguments[0] as () => void, /broken listener/);
  off();
  bell.ring();
  assert.deepEqual(heard, ["on", "once"]);
});
