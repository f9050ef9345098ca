// A comet that does what each test says, on a real WebSocket and a free loopback port.

import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { Op, type Packet, decodePackets, encodePacket } from "../dist/packet.js";

const DEADLINE_MS = 10_000;
const utf8 = new TextEncoder();
const bytesOf = (body: Uint8Array | string | object) =>
  body instanceof Uint8Array ? body : utf8.encode(typeof body === "string" ? body : JSON.stringify(body));

/** Values in, values out, waiting for whichever is late; a test that waits in vain fails with `what`. */
export class Mailbox<T> {
  readonly #full: T[] = [];
  readonly #empty: ((value: T) => void)[] = [];

  put(value: T): void {
    const taker = this.#empty.shift();
    if (taker) taker(value);
    else this.#full.push(value);
  }

  async take(what: string): Promise<T> {
    if (this.#full.length > 0) return this.#full.shift() as T;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), DEADLINE_MS);
      this.#empty.push((value) => {
        clearTimeout(timer);
        resolve(value);
      });
    });
  }
}

export class ScriptedServer {
  readonly #server: WebSocketServer;
  readonly #connections = new Mailbox<Connection>();

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on("connection", (socket) => this.#connections.put(new Connection(socket)));
  }

  static async start(): Promise<ScriptedServer> {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, path: "/sub" });
    await new Promise((resolve) => server.once("listening", resolve));
    return new ScriptedServer(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/sub`;
  }

  accept(): Promise<Connection> {
    return this.#connections.take("a connection");
  }

  /** Accepts a connection and lets it in. `reply` is the auth reply; without one it is a plain goim server. */
  async admit(reply?: object): Promise<Connection> {
    const connection = await this.accept();
    const auth = await connection.expect(Op.Auth);
    connection.token = JSON.parse(new TextDecoder().decode(auth.body)) as Record<string, unknown>;
    connection.send(Op.AuthReply, auth.seq, reply ?? new Uint8Array());
    return connection;
  }

  async stop(): Promise<void> {
    for (const socket of this.#server.clients) socket.terminate();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export class Connection {
  /** What the client presented, once admitted. */
  token: Record<string, unknown> = {};
  /** How many connections are online, as its heartbeats are told; undefined leaves them unanswered. */
  online: number | undefined = 1;
  /** The op of every packet in the order they came. */
  readonly ops: number[] = [];
  readonly closed: Promise<void>;
  readonly #packets = new Mailbox<Packet>();
  readonly #socket: WebSocket;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("message", (data: Buffer) => decodePackets(data).forEach((packet) => this.#take(packet)));
  }

  #take(packet: Packet): void {
    this.ops.push(packet.op);
    if (packet.op !== Op.Heartbeat) return this.#packets.put(packet);
    if (this.online === undefined) return;
    const body = new Uint8Array(4);
    new DataView(body.buffer).setInt32(0, this.online);
    this.send(Op.HeartbeatReply, packet.seq, body);
  }

  /** The next packet that is no heartbeat; it must have this op. */
  async expect(op: number): Promise<Packet & { text: string }> {
    const packet = await this.#packets.take(`op ${op}`);
    const text = new TextDecoder().decode(packet.body);
    if (packet.op !== op) throw new Error(`expected op ${op}, got ${packet.op} ${text}`);
    return { ...packet, text };
  }

  send(op: number, seq: number, body: Uint8Array | string | object): void {
    this.sendBytes(encodePacket(op, seq, bytesOf(body)));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#socket.send(bytes);
  }

  /** Packets merged into one op 9, as job and comet do. */
  push(...packets: Uint8Array[]): void {
    this.send(Op.Raw, 0, Buffer.concat(packets));
  }

  drop(): void {
    this.#socket.terminate();
  }
}

/** One push as goim packs it. */
export function packed(op: number, body: string | Uint8Array): Uint8Array {
  return encodePacket(op, 0, bytesOf(body));
}

/** One push in our envelope. */
export function enveloped(at: {
  room?: string;
  epoch?: number;
  partition?: number;
  offset?: bigint;
  op?: number;
  body: string;
}): Uint8Array {
  const room = utf8.encode(at.room ?? "");
  const head = new Uint8Array(2 + room.length + 20);
  const view = new DataView(head.buffer);
  view.setUint16(0, room.length);
  head.set(room, 2);
  view.setUint32(2 + room.length, at.epoch ?? 0);
  view.setUint32(6 + room.length, at.partition ?? 0);
  view.setBigUint64(10 + room.length, at.offset ?? 0n);
  view.setInt32(18 + room.length, at.op ?? 1000);
  return packed(Op.Message, Buffer.concat([head, utf8.encode(at.body)]));
}
