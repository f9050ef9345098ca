import assert from "node:assert/strict";
import { test } from "node:test";
import { MalformedPacket, decodeEnvelope, decodePackets, encodePacket } from "../dist/packet.js";

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const hex = (data: Uint8Array) => Buffer.from(data).toString("hex");
const EMPTY = new Uint8Array();

test("a heartbeat is written as goim's clients write it", () => {
  assert.equal(hex(encodePacket(2, 1, EMPTY)), "00000010001000010000000200000001");
});

test("an auth carries its token behind the header", () => {
  const packet = encodePacket(7, 1, new TextEncoder().encode("{}"));
  assert.equal(hex(packet), "000000120010000100000007000000017b7d");
});

test("an auth reply and a heartbeat reply are read", () => {
  assert.deepEqual(decodePackets(bytes("00000010 0010 0001 00000008 00000001")), [
    { version: 1, op: 8, seq: 1, body: EMPTY },
  ]);
  assert.deepEqual(decodePackets(bytes("00000014 0010 0001 00000003 00000001 00000001")), [
    { version: 1, op: 3, seq: 1, body: bytes("00000001") },
  ]);
});

test("two pushes merged into one raw packet are read one by one", () => {
  const merged = bytes(
    "00000034 0010 0001 00000009 00000000" +
      "00000012 0010 0001 000003e8 00000000 6d31" +
      "00000012 0010 0001 000003e9 00000000 6d32",
  );
  const [outer, ...none] = decodePackets(merged);
  assert.equal(none.length, 0);
  assert.equal(outer?.op, 9);
  assert.deepEqual(decodePackets(outer.body), [
    { version: 1, op: 1000, seq: 0, body: bytes("6d31") },
    { version: 1, op: 1001, seq: 0, body: bytes("6d32") },
  ]);
});

test("packets are read where they stand, not at the start of their buffer", () => {
  const inside = bytes("ffffff 00000010 0010 0001 00000008 00000001").subarray(3);
  assert.equal(decodePackets(inside)[0]?.op, 8);
});

test("an envelope gives room, id, op and body", () => {
  const body = bytes("0008 6c6976653a2f2f31 0000002a 00000007 0000000100000002 000003e8 6d31");
  assert.deepEqual(decodeEnvelope(body), {
    room: "live://1",
    id: { epoch: 42, partition: 7, offset: 4294967298n },
    op: 1000,
    body: bytes("6d31"),
  });
});

test("an envelope with no room and no body is whole", () => {
  const { room, body } = decodeEnvelope(bytes("0000 00000000 00000000 0000000000000000 000003e8"));
  assert.equal(room, "");
  assert.equal(body.length, 0);
});

for (const [what, malformed] of [
  ["a header cut short", "00000010 0010 0001 00000008 000000"],
  ["a length beyond the bytes", "00000011 0010 0001 00000008 00000001"],
  ["a length below the header", "0000000f 0010 0001 00000008 00000001"],
  ["a negative length", "fffffff0 0010 0001 00000008 00000001"],
  ["another header length", "00000010 0011 0001 00000008 00000001"],
  ["bytes behind the last packet", "00000010 0010 0001 00000008 00000001 00"],
] as const) {
  test(`${what} is malformed`, () => {
    assert.throws(() => decodePackets(bytes(malformed)), MalformedPacket);
  });
}

for (const malformed of ["", "00", "0008 6c69", "0000 00000000 00000000 0000000000000000 0003e8", "ffff 00"]) {
  test(`an envelope of ${malformed.length / 2} bytes that announces more is malformed`, () => {
    assert.throws(() => decodeEnvelope(bytes(malformed)), MalformedPacket);
  });
}
