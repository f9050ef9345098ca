// The client: keeps one session alive, takes it up again elsewhere when it ends, and carries over
// what the application asked for: rooms, accepted ops, the key, and which pushes it has seen.

import { Backoff, STABLE_MS } from "./backoff.js";
import { Emitter } from "./emitter.js";
import { ClientError, asClientError } from "./error.js";
import type { Gap, Message } from "./message.js";
import { Router } from "./nodes.js";
import { type ClientOptions, checkOp, checkOptions, encodeToken } from "./options.js";
import { MAX_BODY, Op } from "./packet.js";
import { RepeatFilter } from "./repeats.js";
import { type Rooms, chunk, readResults } from "./rooms.js";
import { Session, type WebSocketConstructor } from "./session.js";

export type StateChange =
  | { state: "connecting"; url?: string }
  | { state: "online"; url: string; capabilities: boolean; key?: string; server?: string }
  | { state: "offline"; error: ClientError; retryInMs: number }
  | { state: "closed"; error: ClientError };

export interface ClientEvents {
  /** Each change of the connection. `online` comes when the rooms are joined again. */
  state: StateChange;
  /** A push, repeats already dropped. */
  message: Message;
  /** How many connections the room given as `room` has, after each heartbeat. */
  count: number;
  /** Pushes that this client was not given. */
  gap: Gap;
  /** Whatever went wrong; the client goes on by itself unless `state` says closed. */
  error: ClientError;
}

/** Codes after which coming back would only throw out whoever took this one's place. */
const FINAL = new Set(["replaced", "kicked"]);

/** From a server that could not be moved to to the next, milliseconds. */
const MOVE_AGAIN_MS = 100;

/** Bytes of a room's name, so that it fits a packet whatever is escaped around it. */
const MAX_ROOM = 1024;

/** Ops with a meaning of their own: not to be sent as the application's. */
const isReserved = (op: number) => (op >= 2 && op <= 25 && !(op >= 4 && op <= 6)) || op === 1;

const utf8 = new TextEncoder();
const bytesOf = (body: Uint8Array | string) => (typeof body === "string" ? utf8.encode(body) : body);

/** A promise the application may ignore: in Node an unhandled rejection would end the process. */
function ignorable<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

export class Client extends Emitter<ClientEvents> {
  readonly #options: ClientOptions;
  readonly #webSocket: WebSocketConstructor;
  readonly #router: Router;
  readonly #backoff: Backoff;
  readonly #repeats = new RepeatFilter();
  readonly #accepts: Set<number>;
  readonly #rooms = new Set<string>();
  readonly #refused = new Map<string, ClientError>();
  #room: string | undefined;
  #key: string | undefined;
  #session: Session | undefined;
  /** Settles once another session has taken over, or none could; undefined while nothing moves. */
  #moved: Promise<void> | undefined;
  /** The session that is being left while something moves. */
  #leaving: Session | undefined;
  /** What others have brought meanwhile: it comes after what the one that is being left still brings. */
  #held: (() => void)[] = [];
  /** Another session that is to be left as well, and until when. */
  #toldNext: { session: Session; until: number } | undefined;
  #state: StateChange["state"] | "idle" = "idle";
  #closed: ClientError | undefined;
  #reported: ClientError | undefined;
  #wake: (() => void) | undefined;
  #waiting: { resolve: (session: Session) => void; reject: (error: ClientError) => void }[] = [];

  /** Throws TypeError when the options cannot work. Connects nothing yet. */
  constructor(options: ClientOptions) {
    super();
    checkOptions(options);
    const webSocket = options.webSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    if (!webSocket) throw new TypeError("no global WebSocket here: pass the option webSocket, e.g. from `ws`");
    this.#webSocket = webSocket;
    this.#options = options;
    this.#router = new Router(options.server);
    this.#backoff = new Backoff(options.random);
    this.#accepts = new Set(options.accepts);
    this.#key = options.key || undefined;
    this.#room = options.room || undefined;
    if (this.#room) this.#rooms.add(this.#room);
  }

  get state(): StateChange["state"] | "idle" {
    return this.#state;
  }

  /** The rooms this client is in, or will be in again once online. */
  get rooms(): string[] {
    return [...this.#rooms];
  }

  /** The connection's key, once the server has told it or the application chose it. */
  get key(): string | undefined {
    return this.#key;
  }

  /** Settles when first online; keeps trying until then, fails when the client is closed before. */
  connect(): Promise<void> {
    const online = this.#online();
    if (this.#state === "idle" && !this.#closed) {
      // Browsers say when the network is back: no reason to sit out the rest of a wait.
      (globalThis as { addEventListener?: typeof addEventListener }).addEventListener?.("online", this.#onNetwork);
      void this.#run();
    }
    return ignorable(online.then(() => {}));
  }

  /** While waiting to reconnect: tries at once. */
  retryNow(): void {
    this.#wake?.();
  }

  /** Ends it for good. A client that was closed does not connect again. */
  close(): void {
    this.#close(new ClientError("closed", "closed by the application"));
  }

  /**
   * Enters a room and stays in it across reconnects. Settles once the server has confirmed it, so a
   * push answered later reaches this client. A plain goim server has one room per connection: there
   * the new room replaces the old one. Fails when the server refuses the room.
   */
  join(room: string): Promise<void> {
    return ignorable(this.#join(room));
  }

  async #join(room: string): Promise<void> {
    if (!room || utf8.encode(room).length > MAX_ROOM) {
      throw new TypeError(`a room has a name, such as live://1, of at most ${MAX_ROOM} bytes`);
    }
    this.#rooms.add(room);
    this.#refused.delete(room);
    while (true) {
      const session = await this.#online();
      const refused = this.#refused.get(room);
      if (refused) throw refused;
      if (session.joined.has(room) || !this.#rooms.has(room)) return;
      await this.#unlessLost(session, () => this.#enter(session, [room]));
    }
  }

  /** Leaves a room. Settles once no further push of it will come. */
  leave(room: string): Promise<void> {
    return ignorable(this.#leave(room));
  }

  async #leave(room: string): Promise<void> {
    this.#rooms.delete(room);
    if (this.#room === room) this.#room = undefined;
    const session = this.#session;
    if (!session?.alive || !session.asked.delete(room)) return;
    session.joined.delete(room);
    await this.#unlessLost(session, async () => {
      await session.ready; // its token may name the room
      if (session.capabilities) await session.request(Op.Leave, Op.LeaveReply, utf8.encode(JSON.stringify([room])));
      else await session.request(Op.ChangeRoom, Op.ChangeRoomReply, new Uint8Array());
    });
  }

  /** Wants pushes with these ops from now on, whether to this key, this member or all. */
  subscribe(...ops: number[]): Promise<void> {
    ops.forEach(checkOp);
    for (const op of ops) this.#accepts.add(op);
    return ignorable(this.#accept(Op.Subscribe, Op.SubscribeReply, ops));
  }

  /** Takes `subscribe`, or an op given as `accepts`, back. */
  unsubscribe(...ops: number[]): Promise<void> {
    ops.forEach(checkOp);
    for (const op of ops) this.#accepts.delete(op);
    return ignorable(this.#accept(Op.Unsubscribe, Op.UnsubscribeReply, ops));
  }

  /**
   * Sends upstream; settles when the server has taken it. Not queued while offline: fails then, and
   * when the connection is lost before the answer, in which case it may or may not have arrived.
   */
  send(op: number, body: Uint8Array | string): Promise<void> {
    checkOp(op);
    const bytes = bytesOf(body);
    if (isReserved(op)) throw new RangeError(`op ${op} is the protocol's own; applications use 1000 and up`);
    if (bytes.length > MAX_BODY) throw new RangeError(`a body of ${bytes.length} bytes, the server takes ${MAX_BODY}`);
    const session = this.#state === "online" ? this.#session : undefined;
    if (!session) return ignorable(Promise.reject(new ClientError("disconnected", "not connected")));
    return ignorable(session.request(op, op, bytes, true).then(() => {}));
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      const error = await this.#attempt();
      if (this.#closed) return;
      this.#report(error);
      if (this.#closed) return; // by who heard of it
      if (this.#options.reconnect === false || FINAL.has(error.code)) {
        this.#close(error);
        return;
      }
      const retryInMs = this.#backoff.next(error.retryAfterMs);
      const slept = this.#sleep(retryInMs); // first: a listener may cut it short
      this.#change({ state: "offline", error, retryInMs });
      await slept;
    }
  }

  /** One session from finding a server to its end, and those that took over from it; answers why the last ended. */
  async #attempt(): Promise<ClientError> {
    let worked = false;
    try {
      this.#change({ state: "connecting" });
      let session = await this.#open(false, (made) => {
        this.#session = made;
      });
      if (!session.alive) return await session.ended;
      worked = true;
      this.#router.worked();
      const since = Date.now();
      this.#takesOver(session);
      let error = await this.#over(session);
      while (this.#session && this.#session !== session) {
        session = this.#session;
        error = await this.#over(session);
      }
      if (Date.now() - since >= STABLE_MS) this.#backoff.reset();
      return error;
    } catch (error) {
      const why = asClientError(error, "disconnected");
      this.#session?.end(why);
      return why;
    } finally {
      this.#session = undefined;
      if (!worked) this.#router.failed();
    }
  }

  /** Why a session ended, once nothing moves any more. One that was being left was replaced by this client itself. */
  async #over(session: Session): Promise<ClientError> {
    const error = await session.ended;
    const isLeft = this.#leaving === session;
    await this.#moved;
    return isLeft && FINAL.has(error.code) ? new ClientError("disconnected", error.reason) : error;
  }

  /** Takes a session up on the next server, with the rooms this client wants. `made` has it before it is let in. */
  async #open(moving: boolean, made: (session: Session) => void): Promise<Session> {
    const { heartbeatMs = 30_000, deadlineMs = 10_000, auth: given } = this.#options;
    const node = await this.#router.next(deadlineMs);
    if (this.#closed) throw this.#closed;
    if (node.backoff) this.#backoff.rule = node.backoff;
    if (!moving) this.#change({ state: "connecting", url: node.url });
    if (this.#closed) throw this.#closed;
    const auth = typeof given === "function" ? await inTime(given(), deadlineMs) : given;
    if (this.#closed) throw this.#closed;
    const room = this.#room;
    const session: Session = new Session({
      url: node.url,
      webSocket: this.#webSocket,
      token: encodeToken(this.#options, { key: this.#key, room, accepts: this.#accepts, auth, moving }),
      deadlineMs,
      heartbeatMs: Math.min(heartbeatMs, node.heartbeatMs ?? Infinity),
      onMessage: (message) => this.#inOrder(session, () => this.#deliver(message)),
      onCount: (online) => this.emit("count", online),
      onGap: (gap) => this.#inOrder(session, () => this.emit("gap", gap)),
      onMove: (withinMs) => this.#move(session, Date.now() + withinMs),
      onRefusal: (error) => this.#report(error),
    });
    made(session);
    if (room) session.asked.add(room);
    const reply = await session.ready;
    if (room && session.asked.has(room)) session.joined.add(room);
    if (!this.#options.key && reply.key) this.#key = reply.key;
    const missing = () => [...this.#rooms].filter((name) => !session.joined.has(name));
    if (session.capabilities) {
      while (session.alive && missing().length > 0) await this.#enter(session, missing());
    } else {
      await this.#enter(session, missing());
    }
    return session;
  }

  /** From now on this session is the one. */
  #takesOver(session: Session): void {
    const { key = this.#key, server } = session.reply;
    this.#change({
      state: "online",
      url: session.url,
      capabilities: session.capabilities,
      ...(key ? { key } : {}),
      ...(server ? { server } : {}),
    });
    for (const waiting of this.#waiting.splice(0)) waiting.resolve(session);
  }

  /** The server leaves: another session takes over, and this one ends once it has given all that is its to give. */
  #move(old: Session, until: number): void {
    if (this.#moved && this.#leaving !== old) this.#toldNext = { session: old, until };
    if (this.#moved || this.#session !== old) return;
    this.#leaving = old;
    this.#moved = this.#takeOver(old, until).finally(() => {
      this.#moved = this.#leaving = undefined;
      for (const deliver of this.#held.splice(0)) if (!this.#closed) deliver();
      const next = this.#toldNext;
      this.#toldNext = undefined;
      if (next) this.#move(next.session, next.until);
    });
  }

  /** What comes on two sessions comes in order when the one that is being left comes first. */
  #inOrder(session: Session, deliver: () => void): void {
    if (!this.#leaving || this.#leaving === session) deliver();
    else this.#held.push(deliver);
  }

  /** Never fails: who finds no other server in time stays until it is closed, and comes back as after any loss. */
  async #takeOver(old: Session, until: number): Promise<void> {
    const accepts = new Set(this.#accepts);
    let next: Session | undefined;
    while (!next && old.alive && !this.#closed && Date.now() < until) {
      const made: Session[] = [];
      try {
        next = await this.#open(true, (session) => {
          made.push(session);
          void old.ended.then(() => next ?? session.end(new ClientError("disconnected", "moved too late")));
        });
      } catch (error) {
        for (const session of made) session.end(asClientError(error, "disconnected"));
        this.#router.failed();
        await new Promise((resolve) => setTimeout(resolve, MOVE_AGAIN_MS));
      }
    }
    if (!next?.alive) return;
    if (!old.alive || this.#closed) return next.end(this.#closed ?? new ClientError("disconnected", "moved too late"));
    this.#session = next;
    this.#router.worked();
    this.#takesOver(next);
    try {
      await this.#catchUp(next, accepts);
      await old.leave(next.through);
    } catch {
      // Whether the old one had something left to give is not known.
      if (!this.#closed) this.emit("gap", { reason: "move", dropped: 0, ranges: [] });
    }
    old.end(new ClientError("disconnected", "moved"));
  }

  /** Tells a session what was changed on the one before while it was made. */
  async #catchUp(session: Session, accepts: ReadonlySet<number>): Promise<void> {
    const added = [...this.#accepts].filter((op) => !accepts.has(op));
    const removed = [...accepts].filter((op) => !this.#accepts.has(op));
    const left = [...session.asked].filter((room) => !this.#rooms.has(room));
    if (added.length > 0) await session.request(Op.Subscribe, Op.SubscribeReply, utf8.encode(added.join(",")));
    if (removed.length > 0) await session.request(Op.Unsubscribe, Op.UnsubscribeReply, utf8.encode(removed.join(",")));
    for (const room of left) {
      session.asked.delete(room);
      session.joined.delete(room);
      await session.request(Op.Leave, Op.LeaveReply, utf8.encode(JSON.stringify([room])));
    }
  }

  #deliver(message: Message): void {
    if (message.id && this.#repeats.seen(message.id)) return;
    this.emit("message", message);
  }

  /** Joins rooms on a session. One the server refuses is forgotten, with an error event. */
  async #enter(session: Session, rooms: string[]): Promise<void> {
    if (!session.capabilities) return this.#changeRoom(session, rooms);
    for (const part of chunk(rooms)) {
      for (const room of part.rooms) session.asked.add(room);
      const results = await this.#ask(session, part);
      for (const [room, refusal] of results) {
        if (refusal) this.#refuse(session, refusal);
        else if (session.asked.has(room)) session.joined.add(room);
      }
    }
  }

  async #ask(session: Session, { rooms, bytes }: Rooms): Promise<Map<string, ClientError | undefined>> {
    try {
      return readResults(await session.request(Op.Join, Op.JoinReply, bytes), rooms, (reply) => session.heard(reply));
    } catch (error) {
      if (!session.alive) throw error;
      if (!(error instanceof ClientError)) {
        const why = new ClientError("malformed", asClientError(error, "malformed").reason);
        session.end(why);
        throw why;
      }
      // Refused as a whole. Asked to wait while taking a session up again, it is better to come back later.
      const isReady = this.#state === "online" && session === this.#session;
      if (!isReady && error.retryAfterMs) throw error;
      const { code, reason, retryAfterMs } = error;
      return new Map(rooms.map((room) => [room, new ClientError(code, reason, retryAfterMs, room)]));
    }
  }

  /** The one room of a plain goim session: the last one asked for. */
  async #changeRoom(session: Session, rooms: string[]): Promise<void> {
    const room = rooms.at(-1);
    if (!room) return;
    const replaced = [...session.joined, ...rooms.slice(0, -1)];
    session.asked.clear();
    session.joined.clear();
    session.asked.add(room);
    await session.request(Op.ChangeRoom, Op.ChangeRoomReply, utf8.encode(room));
    session.joined.add(room);
    this.#room = room;
    for (const other of replaced.filter((name) => name !== room)) {
      // Asked for one after the other this is goim's normal way; lost on reconnecting it is worth a word.
      if (this.#state === "online") this.#rooms.delete(other);
      else this.#refuse(session, new ClientError("unsupported", "this server has one room per connection", undefined, other));
    }
  }

  #refuse(session: Session, refusal: ClientError): void {
    const room = refusal.room as string;
    session.asked.delete(room);
    this.#rooms.delete(room);
    if (this.#room === room) this.#room = undefined;
    this.#refused.set(room, refusal);
    this.#report(refusal);
  }

  /** What the server said before it hung up is also why the session ended: told once. */
  #report(error: ClientError): void {
    if (this.#reported === error) return;
    this.#reported = error;
    this.emit("error", error);
  }

  /** Tells a live session of a change; any later one is told of it when it authenticates. */
  async #accept(op: number, replyOp: number, ops: number[]): Promise<void> {
    const session = await this.#online();
    await this.#unlessLost(session, () => session.request(op, replyOp, utf8.encode(ops.join(","))));
  }

  /** Runs a request; that its session ended meanwhile is no failure, the next one makes it good. */
  async #unlessLost(session: Session, request: () => Promise<unknown>): Promise<void> {
    try {
      await request();
    } catch (error) {
      if (session.alive || this.#closed) throw error;
    }
  }

  #online(): Promise<Session> {
    if (this.#closed) return Promise.reject(this.#closed);
    const session = this.#session;
    if (this.#state === "online" && session?.alive) return Promise.resolve(session);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #close(error: ClientError): void {
    if (this.#closed) return;
    this.#closed = error;
    (globalThis as { removeEventListener?: typeof removeEventListener }).removeEventListener?.("online", this.#onNetwork);
    this.#session?.end(error);
    this.#wake?.();
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    this.#change({ state: "closed", error });
  }

  readonly #onNetwork = () => this.retryNow();

  #change(change: StateChange): void {
    this.#state = change.state;
    this.emit("state", change);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }
}

/** What the application's `auth` answers, unless that takes too long. */
async function inTime<T>(answer: T | Promise<T>, deadlineMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new ClientError("timeout", `no answer of \`auth\` within ${deadlineMs} ms`);
    timer = setTimeout(() => reject(error), deadlineMs);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
