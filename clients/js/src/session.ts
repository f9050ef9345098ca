// One connection from its socket to its end: auth first, heartbeats, requests and their replies,
// packets out of frames. It knows nothing of reconnecting; that is the client's.

import { ClientError, asClientError } from "./error.js";
import { type Gap, Message } from "./message.js";
import { type Packet, Op, decodeEnvelope, decodePackets, encodePacket } from "./packet.js";

/** The part of a WebSocket this package uses; browsers', Node's and `ws`'s all fit. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  // `any`: the event types of browsers and `ws` share no name.
  onopen: ((event: any) => any) | null;
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(data: any): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

/** What the auth reply says. All but `capabilities` is absent from a plain goim server. */
export interface AuthReply {
  /** The server took part in the capabilities this client announced. */
  capabilities: boolean;
  key?: string;
  server?: string;
  heartbeatMs?: number;
}

export interface SessionOptions {
  url: string;
  webSocket: WebSocketConstructor;
  /** The auth body. */
  token: Uint8Array;
  /** From opening the socket to the auth reply, and from a request to its reply; milliseconds. */
  deadlineMs: number;
  /** At most this long between heartbeats, milliseconds. */
  heartbeatMs: number;
  onMessage(message: Message): void;
  onCount(online: number): void;
  onGap(gap: Gap): void;
  /** The server leaves: connect to another within so many milliseconds (op 18). */
  onMove(withinMs: number): void;
  /** The server refused something nobody waits for (op 24). */
  onRefusal(error: ClientError): void;
}

interface Pending {
  replyOp: number;
  resolve(body: Uint8Array): void;
  reject(error: ClientError): void;
  timer: ReturnType<typeof setTimeout>;
}

const EMPTY = new Uint8Array();
const utf8 = new TextDecoder();

export class Session {
  /** Settles with the auth reply, or fails with the reason there was none. */
  readonly ready: Promise<AuthReply>;
  /** Settles, never fails, with why the session ended. */
  readonly ended: Promise<ClientError>;
  /** Rooms the server was asked for and has not been asked to forget. */
  readonly asked = new Set<string>();
  /** Those of them it has confirmed. */
  readonly joined = new Set<string>();
  /** Per partition, the offset from which on this session is given every push that is for it, so far as it was told. */
  readonly through = new Map<string, number>();

  readonly #options: SessionOptions;
  readonly #socket: WebSocketLike;
  readonly #pending = new Map<number, Pending>();
  #reply: AuthReply = { capabilities: false };
  #authenticated = false;
  #end: ((error: ClientError) => void) | undefined;
  #parting: ClientError | undefined;
  #seq = 0;
  #unanswered = 0;
  #heartbeat: ReturnType<typeof setInterval> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    const socket = new options.webSocket(options.url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const auth = this.#expect(Op.AuthReply);
    socket.onopen = () => this.#send(Op.Auth, auth.seq, options.token);
    socket.onmessage = (event: { data: unknown }) => this.#receive(event.data);
    socket.onerror = (event: { message?: string }) =>
      this.end(new ClientError("disconnected", event?.message || `${options.url} failed`));
    socket.onclose = (event: { code?: number; reason?: string }) =>
      this.end(new ClientError("disconnected", event?.reason || `connection closed (${event?.code ?? "no code"})`));
    this.ready = auth.reply.then(() => this.#reply);
    this.ready.catch(() => {}); // whoever waits for `ready` hears of it; `ended` says it too
  }

  /** What the auth reply said. */
  get reply(): AuthReply {
    return this.#reply;
  }

  /** Where it is connected. */
  get url(): string {
    return this.#options.url;
  }

  /** The server took the capabilities this client announced: ops 18–25 are spoken. */
  get capabilities(): boolean {
    return this.#reply.capabilities;
  }

  get alive(): boolean {
    return this.#end !== undefined;
  }

  /**
   * Sends a packet and waits for the reply with its seq. Fails when the session ends first. A reply
   * that is late ends the session, unless `patient`: then it fails this request alone.
   */
  request(op: number, replyOp: number, body: Uint8Array, patient = false): Promise<Uint8Array> {
    if (!this.alive) return Promise.reject(new ClientError("disconnected", "not connected"));
    const { seq, reply } = this.#expect(replyOp, patient);
    this.#send(op, seq, body);
    return reply;
  }

  /** Takes up what a reply says in `through`. */
  heard(reply: object): void {
    const { through } = reply as { through?: unknown };
    if (typeof through !== "object" || through === null) return;
    for (const [partition, offset] of Object.entries(through)) {
      if (typeof offset === "number") this.through.set(partition, Math.max(offset, this.through.get(partition) ?? 0));
    }
  }

  /**
   * Says that another session has taken over which is given everything from `through` on. Settles once everything
   * before was given here; the server ends this session then.
   */
  async leave(through: ReadonlyMap<string, number>): Promise<void> {
    const body = new TextEncoder().encode(JSON.stringify([Object.fromEntries(through)]));
    await this.request(Op.Move, Op.Move, body);
  }

  /** Ends the session: closes the socket, fails what is pending. Once is enough, more is harmless. */
  end(error: ClientError): void {
    const end = this.#end;
    if (!end) return;
    this.#end = undefined;
    const why = error.code === "disconnected" && this.#parting ? this.#parting : error;
    clearInterval(this.#heartbeat);
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(why);
    }
    this.#pending.clear();
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {}; // `ws` reports a close during connect as an error event
    socket.close();
    if (why.code === "silent" || why.code === "timeout") {
      // The peer will not answer a closing handshake; `ws` can do without, browsers do so themselves.
      (socket as { terminate?: () => void }).terminate?.();
    }
    end(why);
  }

  #expect(replyOp: number, patient = false): { seq: number; reply: Promise<Uint8Array> } {
    this.#seq = (this.#seq % 0x7fffffff) + 1; // 0 belongs to the server
    const seq = this.#seq;
    const reply = new Promise<Uint8Array>((resolve, reject) => {
      const late = () => {
        const error = new ClientError("timeout", `no reply within ${this.#options.deadlineMs} ms`);
        this.#pending.delete(seq);
        reject(error);
        if (!patient) this.end(error);
      };
      const timer = setTimeout(late, this.#options.deadlineMs);
      this.#pending.set(seq, { replyOp, resolve, reject, timer });
    });
    return { seq, reply };
  }

  #send(op: number, seq: number, body: Uint8Array): void {
    if (this.#socket.readyState === 1) this.#socket.send(encodePacket(op, seq, body));
  }

  /** Runs while the auth reply is read, not later: a push may stand right behind it. */
  #start(body: Uint8Array): void {
    if (body.length > 0) {
      const reply = parse(body);
      const { key, server, heartbeatMs } = reply as { key?: unknown; server?: unknown; heartbeatMs?: unknown };
      this.heard(reply);
      this.#reply = {
        capabilities: true,
        ...(typeof key === "string" && key ? { key } : {}),
        ...(typeof server === "string" ? { server } : {}),
        ...(typeof heartbeatMs === "number" && heartbeatMs > 0 ? { heartbeatMs } : {}),
      };
    }
    this.#authenticated = true;
    const every = Math.min(this.#options.heartbeatMs, (this.#reply.heartbeatMs ?? Infinity) / 3);
    this.#heartbeat = setInterval(() => this.#beat(), every);
    this.#beat();
  }

  #beat(): void {
    if (this.#unanswered >= 2) {
      this.end(new ClientError("silent", "no sign of life since two heartbeats"));
      return;
    }
    this.#unanswered += 1;
    this.#seq = (this.#seq % 0x7fffffff) + 1;
    this.#send(Op.Heartbeat, this.#seq, EMPTY);
  }

  /** Nothing that arrives may throw out of here: a frame that cannot be read ends the session. */
  #receive(data: unknown): void {
    this.#unanswered = 0;
    this.#parting = undefined;
    try {
      if (!(data instanceof ArrayBuffer)) throw new TypeError("a text frame, expected binary");
      for (const packet of decodePackets(new Uint8Array(data))) {
        if (!this.alive) return;
        this.#packet(packet);
      }
    } catch (error) {
      this.end(new ClientError("malformed", asClientError(error, "malformed").reason));
    }
  }

  #packet(packet: Packet): void {
    const { op, seq, body } = packet;
    const pending = this.#pending.get(seq);
    if (pending && (op === pending.replyOp || op === Op.Error)) {
      this.#settle(seq, pending, packet);
      return;
    }
    switch (op) {
      case Op.HeartbeatReply:
        if (body.length >= 4) {
          this.#options.onCount(new DataView(body.buffer, body.byteOffset, 4).getInt32(0));
        }
        return;
      case Op.Raw:
        for (const inner of decodePackets(body)) this.#push(inner);
        return;
      case Op.Gap:
        if (this.capabilities) this.#options.onGap(gapOf(parse(body)));
        return;
      case Op.Error:
        this.#parting = refusalOf(body);
        this.#options.onRefusal(this.#parting);
        return;
      case Op.Move:
        if (this.capabilities && seq === 0) {
          const { withinMs } = parse(body) as { withinMs?: unknown };
          this.#options.onMove(typeof withinMs === "number" ? withinMs : 0);
        }
        return;
      case Op.AuthReply:
      case Op.ChangeRoomReply:
      case Op.SubscribeReply:
      case Op.UnsubscribeReply:
      case Op.JoinReply:
      case Op.LeaveReply:
        return;
      default:
        // Replies carry a seq, pushes carry 0: an empty one with a seq is a reply nobody waits for any more.
        if (seq === 0 || body.length > 0) this.#push(packet);
    }
  }

  #settle(seq: number, pending: Pending, packet: Packet): void {
    if (packet.op === Op.AuthReply) this.#start(packet.body); // may throw: `pending` must still be there
    clearTimeout(pending.timer);
    this.#pending.delete(seq);
    if (packet.op === Op.Error) {
      this.#parting = refusalOf(packet.body);
      pending.reject(this.#parting);
      if (!this.#authenticated) this.end(this.#parting);
      return;
    }
    pending.resolve(packet.body);
  }

  /** A pushed packet, in a raw body or bare. Only op 25 is ours, and only where it was agreed on. */
  #push(packet: Packet): void {
    if (packet.op === Op.Message && this.capabilities) {
      const { op, body, room, id } = decodeEnvelope(packet.body);
      this.#options.onMessage(new Message(op, body, room || undefined, id.epoch === 0 ? undefined : id));
      return;
    }
    if (packet.op === Op.Gap && this.capabilities) {
      this.#options.onGap(gapOf(parse(packet.body)));
      return;
    }
    this.#options.onMessage(new Message(packet.op, packet.body));
  }
}

function parse(body: Uint8Array): object {
  const value: unknown = JSON.parse(utf8.decode(body));
  if (typeof value !== "object" || value === null) throw new TypeError("JSON that is no object");
  return value;
}

function gapOf(value: object): Gap {
  const { reason, dropped, ranges } = value as Partial<Gap>;
  return {
    reason: String(reason ?? ""),
    dropped: typeof dropped === "number" ? dropped : 0,
    ranges: Array.isArray(ranges) ? ranges : [],
  };
}

function refusalOf(body: Uint8Array): ClientError {
  const { code, reason, retryAfterMs } = parse(body) as { code?: unknown; reason?: unknown; retryAfterMs?: unknown };
  return new ClientError(
    String(code ?? "error"),
    String(reason ?? ""),
    typeof retryAfterMs === "number" && retryAfterMs > 0 ? retryAfterMs : undefined,
  );
}
