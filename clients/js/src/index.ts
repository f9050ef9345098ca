// The package's public face.

export { Client, type ClientEvents, type StateChange } from "./client.js";
export { ClientError, type LocalCode } from "./error.js";
export { type Gap, Message } from "./message.js";
export { type NodeList, nodeUrls } from "./nodes.js";
export type { AuthFields, ClientOptions } from "./options.js";
export {
  type Envelope,
  MalformedPacket,
  type MessageId,
  Op,
  type Packet,
  decodeEnvelope,
  decodePackets,
  encodePacket,
} from "./packet.js";
export type { WebSocketConstructor, WebSocketLike } from "./session.js";
