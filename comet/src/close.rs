//! Every reason a connection ends, by the name that metrics and logs use.

use proto::packet::PacketError;

/// Why a connection was or is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The client closed, or its network did.
    Gone,
    /// The socket failed.
    Io,
    /// TLS or the WebSocket upgrade failed.
    Handshake,
    /// Not authenticated in time.
    AuthTimeout,
    /// Logic refused who it claims to be.
    AuthRefused,
    /// The token that let it in, or should have, is too old.
    Expired,
    /// It asked for a room that it may not enter, and cannot be told so in another way.
    RoomRefused,
    /// Logic did not answer: the client may try again.
    LogicAway,
    /// Bytes that are no packet.
    BadPacket,
    /// Bytes that break the WebSocket protocol, with the close code to send.
    BadFrame(u16),
    /// No op 2 within the session timer.
    HeartbeatTimeout,
    /// The same key connected again.
    Replaced,
    /// The outbound queue was full and the policy is to close.
    Slow,
    /// More frames or bytes a second than allowed.
    RateLimited,
    /// Too many connections, from everywhere or from one address; too many handshakes a second.
    Limit,
    /// Logic asked for it.
    Kicked,
    /// This server was not sent something that may have been for it.
    Missed,
    /// This server is leaving.
    Drain,
    /// It has connected elsewhere, as this server asked it to, and was given everything.
    Moved,
    /// The task of this connection panicked.
    Panic,
}

impl Close {
    /// Every reason, so that each has its metric from the start.
    pub const ALL: [Self; 20] = [
        Self::Gone,
        Self::Io,
        Self::Handshake,
        Self::AuthTimeout,
        Self::AuthRefused,
        Self::Expired,
        Self::RoomRefused,
        Self::LogicAway,
        Self::BadPacket,
        Self::BadFrame(1002),
        Self::HeartbeatTimeout,
        Self::Replaced,
        Self::Slow,
        Self::RateLimited,
        Self::Limit,
        Self::Kicked,
        Self::Missed,
        Self::Drain,
        Self::Moved,
        Self::Panic,
    ];

    /// The label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Io => "io",
            Self::Handshake => "handshake",
            Self::AuthTimeout => "auth_timeout",
            Self::AuthRefused => "auth_refused",
            Self::Expired => "expired",
            Self::RoomRefused => "room_refused",
            Self::LogicAway => "logic_away",
            Self::BadPacket => "bad_packet",
            Self::BadFrame(_) => "bad_frame",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Replaced => "replaced",
            Self::Slow => "slow",
            Self::RateLimited => "rate_limited",
            Self::Limit => "limit",
            Self::Kicked => "kicked",
            Self::Missed => "missed",
            Self::Drain => "drain",
            Self::Moved => "moved",
            Self::Panic => "panic",
        }
    }

    /// What op 24 says of it, and when to come back in milliseconds; `None` when there is nobody to tell.
    pub fn problem(self) -> Option<(&'static str, Option<u64>)> {
        match self {
            Self::AuthTimeout => Some(("no auth packet in time: send op 7 first", None)),
            Self::AuthRefused => Some(("the auth body was refused: check what it claims", None)),
            Self::Expired => Some(("the token has expired: come back with a newer one", None)),
            Self::RoomRefused => Some(("this client may not enter that room", None)),
            Self::LogicAway => Some(("sessions cannot be made right now: try again", Some(2000))),
            Self::BadPacket => Some(("bytes that are no packet: check the header's lengths", None)),
            Self::BadFrame(_) => Some(("bytes that break RFC 6455", None)),
            Self::Replaced => Some(("the same key connected again", None)),
            Self::Kicked => Some(("this connection was ended by the service", None)),
            Self::Slow => Some(("too much waits for this connection: read faster", Some(1000))),
            Self::RateLimited => Some(("too many packets or bytes a second: send less", Some(1000))),
            Self::Limit => Some(("too many connections", Some(1000))),
            Self::Missed => Some(("messages for this connection may be lost: connect again", Some(1000))),
            Self::Drain => Some(("this server is leaving: connect to another", None)),
            Self::Panic => Some(("this connection failed inside the server", Some(1000))),
            Self::Gone | Self::Io | Self::Handshake | Self::HeartbeatTimeout | Self::Moved => None,
        }
    }

    /// The close code a WebSocket client is told (RFC 6455 §7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::BadFrame(code) => code,
            Self::BadPacket => 1002,
            Self::AuthTimeout | Self::AuthRefused | Self::RoomRefused | Self::Replaced | Self::Kicked => 1008,
            // Ours (RFC 6455 §7.4.2): a client that cannot read op 24 knows all the same that a newer token helps.
            Self::Expired => 4401,
            Self::Slow | Self::RateLimited | Self::Limit | Self::LogicAway | Self::Missed => 1013,
            Self::Drain => 1012,
            Self::Panic => 1011,
            Self::Gone | Self::Io | Self::Handshake | Self::HeartbeatTimeout | Self::Moved => 1000,
        }
    }
}

impl From<PacketError> for Close {
    fn from(_: PacketError) -> Self {
        Self::BadPacket
    }
}

impl From<std::io::Error> for Close {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Self::Gone,
            _ => Self::Io,
        }
    }
}

impl From<proto::frame::FrameError> for Close {
    fn from(error: proto::frame::FrameError) -> Self {
        Self::BadFrame(error.code())
    }
}
