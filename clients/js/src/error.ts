// One error for everything that can go wrong with a connection, told apart by `code`.

/** Codes this package makes itself; any other code came from the server (op 24). */
export type LocalCode =
  | "disconnected" // the socket closed
  | "timeout" // no auth reply, or no reply to a request, in time
  | "silent" // two heartbeats without a sign of life
  | "malformed" // bytes that are no packets, or JSON that is none
  | "nodes" // the node list could not be had
  | "unsupported" // a plain goim server cannot do this
  | "closed"; // close() was called

export class ClientError extends Error {
  override name = "ClientError";

  constructor(
    readonly code: LocalCode | (string & {}),
    /** A sentence for people. */
    readonly reason: string,
    /** How long the server asked to be left alone, milliseconds. */
    readonly retryAfterMs?: number,
    /** The room this is about, when it is about one. */
    readonly room?: string,
  ) {
    super(`${code}: ${reason}`);
  }
}

/** Any thrown value as a ClientError. */
export function asClientError(error: unknown, code: LocalCode): ClientError {
  if (error instanceof ClientError) return error;
  return new ClientError(code, error instanceof Error ? error.message : String(error));
}
