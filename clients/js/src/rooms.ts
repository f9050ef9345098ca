// The bodies of ops 19–22: lists of rooms up, a verdict per room down.

import { ClientError } from "./error.js";
import { MAX_BODY } from "./packet.js";

const utf8 = new TextEncoder();

/** Rooms and the same as a packet's body. */
export interface Rooms {
  rooms: string[];
  bytes: Uint8Array;
}

/** Cuts a list of rooms into JSON lists that each fit one packet. */
export function chunk(rooms: readonly string[]): Rooms[] {
  const chunks: { rooms: string[]; length: number }[] = [];
  for (const room of rooms) {
    const length = utf8.encode(JSON.stringify(room)).length + 1; // and a comma or a bracket
    const last = chunks.at(-1);
    if (last && last.length + length <= MAX_BODY) {
      last.rooms.push(room);
      last.length += length;
    } else {
      chunks.push({ rooms: [room], length: length + 1 });
    }
  }
  return chunks.map(({ rooms }) => ({ rooms, bytes: utf8.encode(JSON.stringify(rooms)) }));
}

/**
 * Reads `{"live://1": "ok", "live://2": "<error code>", "through": …}`: for each room asked about,
 * nothing when it is ok, else the refusal. A room without an answer counts as refused. `heard` is given the whole.
 */
export function readResults(
  reply: Uint8Array,
  rooms: readonly string[],
  heard: (reply: object) => void = () => {},
): Map<string, ClientError | undefined> {
  const answers = JSON.parse(new TextDecoder().decode(reply)) as Record<string, unknown> | null;
  if (typeof answers !== "object" || answers === null) throw new TypeError("a reply that is no JSON object");
  heard(answers);
  return new Map(
    rooms.map((room) => {
      const answer = Object.hasOwn(answers, room) ? answers[room] : "unanswered";
      const refusal = new ClientError(String(answer), `the server refused ${room}`, undefined, room);
      return [room, answer === "ok" ? undefined : refusal];
    }),
  );
}
