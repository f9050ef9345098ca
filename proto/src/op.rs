//! Operation numbers: what a packet is about.
//!
//! 0–17 are goim's (`api/protocol/operation.go`), for every client. 18–25 are ours and exist only for a client whose
//! auth body announced the capability; from anyone else they are application operations like every number from 18 on.

/// Client → server: I am alive. Resets the session timer; the body is ignored.
pub const HEARTBEAT: i32 = 2;
/// Server → client: big-endian `i32`, how many are online in the room of the auth body or of op 12; 0 without one.
pub const HEARTBEAT_REPLY: i32 = 3;
/// Client → server: the first packet, body = [`crate::token`].
pub const AUTH: i32 = 7;
/// Server → client: authenticated. Empty; JSON [`crate::envelope::Welcome`] for a client with capabilities.
pub const AUTH_REPLY: i32 = 8;
/// Server → client: the body is packets. TCP carries them bare, WebSocket keeps this outer header.
pub const RAW: i32 = 9;
/// Client → server: leave every room and enter the one named by the body, or none when it is empty.
pub const CHANGE_ROOM: i32 = 12;
/// Server → client: echoes the body of op 12.
pub const CHANGE_ROOM_REPLY: i32 = 13;
/// Client → server: also accept these operations (comma-separated `i32`).
pub const SUBSCRIBE: i32 = 14;
/// Server → client: echoes the body of op 14.
pub const SUBSCRIBE_REPLY: i32 = 15;
/// Client → server: no longer accept these operations.
pub const UNSUBSCRIBE: i32 = 16;
/// Server → client: echoes the body of op 16.
pub const UNSUBSCRIBE_REPLY: i32 = 17;
/// Server → client: JSON [`crate::envelope::Move`], connect to another server. Client → server: it has, JSON list of the
/// [`crate::envelope::Through`] it was given there. Server → client with that seq: everything before was given here.
pub const MOVE: i32 = 18;
/// Client → server: JSON list of room keys to enter beside those it is in.
pub const JOIN: i32 = 19;
/// Server → client: JSON map of room key → `ok` or an error code.
pub const JOIN_REPLY: i32 = 20;
/// Client → server: JSON list of room keys to leave.
pub const LEAVE: i32 = 21;
/// Server → client: as op 20.
pub const LEAVE_REPLY: i32 = 22;
/// Server → client: JSON [`crate::envelope::Gap`], what this client was not given and why.
pub const GAP: i32 = 23;
/// Server → client: JSON [`crate::envelope::Problem`], before a close and for a refused request.
pub const ERROR: i32 = 24;
/// Server → client: one push with its room and its place in the queue ([`crate::envelope`]).
pub const MESSAGE: i32 = 25;
