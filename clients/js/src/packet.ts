// The packet: 16 bytes of header, then a body. All integers are big-endian.
// No I/O here: bytes in, packets out, and a malformed length is an error, never a read past the end.

/** What a packet is about. 0–17 are goim's, 18–25 ImCluster's; applications use 1000 and up. */
export const Op = {
  Heartbeat: 2,
  HeartbeatReply: 3,
  Auth: 7,
  AuthReply: 8,
  Raw: 9,
  ChangeRoom: 12,
  ChangeRoomReply: 13,
  Subscribe: 14,
  SubscribeReply: 15,
  Unsubscribe: 16,
  UnsubscribeReply: 17,
  Move: 18,
  Join: 19,
  JoinReply: 20,
  Leave: 21,
  LeaveReply: 22,
  Gap: 23,
  Error: 24,
  Message: 25,
} as const;

/** Bytes before the body: u32 packet length, u16 header length, u16 version, u32 op, u32 seq. */
export const HEADER_LENGTH = 16;

/** The longest body a server takes from a client unless it is configured otherwise. */
export const MAX_BODY = 4096;

export interface Packet {
  version: number;
  op: number;
  /** The client's number, echoed in the reply; 0 in what the server sends on its own. */
  seq: number;
  body: Uint8Array;
}

/** A push with the room it was for and the id it has in the cluster. */
export interface Envelope {
  /** Empty for a push to a key, a member or all. */
  room: string;
  id: MessageId;
  op: number;
  body: Uint8Array;
}

/** Where the push is stored. Epoch 0 means it has no id and may not be used to tell repeats. */
export interface MessageId {
  epoch: number;
  partition: number;
  offset: bigint;
}

/** Bytes that are not packets. The stream cannot be trusted after it. */
export class MalformedPacket extends Error {
  override name = "MalformedPacket";
}

const utf8 = new TextDecoder();

/** Writes one packet; version 1, as every goim client does. */
export function encodePacket(op: number, seq: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_LENGTH + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length);
  view.setUint16(4, HEADER_LENGTH);
  view.setUint16(6, 1);
  view.setInt32(8, op);
  view.setInt32(12, seq);
  bytes.set(body, HEADER_LENGTH);
  return bytes;
}

/**
 * Splits bytes that hold nothing but whole packets. Bodies are views into `bytes`, not copies.
 * Throws MalformedPacket when a header is cut short or a length does not fit.
 */
export function decodePackets(bytes: Uint8Array): Packet[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const packets: Packet[] = [];
  let at = 0;
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < HEADER_LENGTH) {
      throw new MalformedPacket(`${left} bytes where a header of ${HEADER_LENGTH} was due`);
    }
    const length = view.getUint32(at);
    const header = view.getUint16(at + 4);
    if (header !== HEADER_LENGTH) {
      throw new MalformedPacket(`header length ${header}, expected ${HEADER_LENGTH}`);
    }
    if (length < HEADER_LENGTH || length > left) {
      throw new MalformedPacket(`packet length ${length} with ${left} bytes left`);
    }
    packets.push({
      version: view.getUint16(at + 6),
      op: view.getInt32(at + 8),
      seq: view.getInt32(at + 12),
      body: bytes.subarray(at + HEADER_LENGTH, at + length),
    });
    at += length;
  }
  return packets;
}

/**
 * Reads the body of op 25: u16 room length, room, u32 epoch, u32 partition, u64 offset, i32 op, body.
 * Throws MalformedPacket when it is too short for what it announces.
 */
export function decodeEnvelope(body: Uint8Array): Envelope {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const roomLength = body.length < 2 ? 0 : view.getUint16(0);
  const fixed = 2 + roomLength;
  const start = fixed + 20;
  if (body.length < start) {
    throw new MalformedPacket(`message of ${body.length} bytes, its head alone takes ${start}`);
  }
  return {
    room: utf8.decode(body.subarray(2, fixed)),
    id: {
      epoch: view.getUint32(fixed),
      partition: view.getUint32(fixed + 4),
      offset: view.getBigUint64(fixed + 8),
    },
    op: view.getInt32(fixed + 16),
    body: body.subarray(start),
  };
}
