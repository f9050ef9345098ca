//! What every test starts with: a comet on free ports with a logic in memory, clients, and patience.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use comet::Logic;
use comet::logic::memory::{MemoryLogic, Said};
use comet::transport::ListenerKind;
use proto::comet::comet_client::CometClient;
use proto::comet::{BroadcastReq, BroadcastRoomReq, Id, PushMsgReq};
use proto::delivery::delivery_client::DeliveryClient;
use proto::frame;
use proto::packet::{self, Packet};
use proto::protocol::Proto;
use runtime::Process;
use runtime::config::FileKeys;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longer than anything here takes on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    comet: comet::Config,
}

/// A running comet.
pub struct Comet {
    pub tcp: SocketAddr,
    pub ws: SocketAddr,
    pub tcp_tls: Option<SocketAddr>,
    pub ws_tls: Option<SocketAddr>,
    pub grpc: SocketAddr,
    pub process: Process,
    pub channel: Channel,
    pub running: JoinHandle<anyhow::Result<()>>,
}

impl Comet {
    /// A comet over this logic; `flags` come after those that make it quick.
    pub async fn start(flags: &[&str], logic: Arc<dyn Logic>) -> Self {
        Self::start_as(flags, logic, Process::quiet()).await
    }

    /// The same as this process.
    pub async fn start_as(flags: &[&str], logic: Arc<dyn Logic>, process: Process) -> Self {
        let quick = "comet --tcp-bind 127.0.0.1:0 --websocket-bind 127.0.0.1:0 --ws-tls-bind 127.0.0.1:0 \
            --tcp-tls-bind 127.0.0.1:0 --grpc-bind 127.0.0.1:0 --shards 2 --host h1 --frames-per-second 100000 \
            --bytes-per-second 1024MiB --online-interval 50ms --drain-min 0s --drain-delay 0s --flush 0s --claim-wait 0s";
        let config = Line::parse_from(quick.split_whitespace().chain(flags.iter().copied())).comet;
        config.check().unwrap();
        let listeners = comet::Listeners::bind(&config).unwrap();
        let address = |kind| listeners.address(kind);
        let (tcp, ws) = (address(ListenerKind::Tcp).unwrap(), address(ListenerKind::WebSocket).unwrap());
        let (tcp_tls, ws_tls) = (address(ListenerKind::TcpTls), address(ListenerKind::WebSocketTls));
        let grpc = listeners.grpc_address();
        let tls = config.internal_tls.open().unwrap();
        let channel = proto::grpc::channel_over(&grpc.to_string(), PATIENCE, tls.as_ref()).unwrap();
        let running = tokio::spawn(comet::run(config, listeners, logic, tls, process.clone()));
        Self { tcp, ws, tcp_tls, ws_tls, grpc, process, channel, running }
    }

    /// The calls of job.
    pub fn job(&self) -> CometClient<Channel> {
        CometClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    /// The calls of our job alone.
    pub fn delivery(&self) -> DeliveryClient<Channel> {
        DeliveryClient::new(self.channel.clone())
    }

    /// Pushes to a room as job does: each message in a packet of its own, all in one raw packet.
    pub async fn push_room(&self, room: &str, messages: &[&str]) {
        self.push_room_as(room, raw(messages), vec![]).await;
    }

    /// The same with ids.
    pub async fn push_room_as(&self, room: &str, proto: Proto, ids: Vec<Id>) {
        let request = BroadcastRoomReq { room_id: room.into(), proto: Some(proto), ids, owner: None };
        self.job().broadcast_room(request).await.unwrap();
    }

    /// Pushes to keys; returns those that were not here.
    pub async fn push_keys(&self, keys: &[&str], op: i32, proto: Proto, ids: Vec<Id>) -> Vec<String> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let request = PushMsgReq { keys, proto: Some(proto), proto_op: op, ids, ..Default::default() };
        self.job().push_msg(request).await.unwrap().into_inner().not_here
    }

    /// Pushes to all.
    pub async fn push_all(&self, op: i32, speed: i32, proto: Proto) {
        let request = BroadcastReq { proto_op: op, proto: Some(proto), speed, ids: vec![], owner: None };
        self.job().broadcast(request).await.unwrap();
    }

    /// The value of one line of the metrics page; 0 when there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.process.metrics.encode();
        let line =
            page.lines().find_map(|line| line.strip_prefix("imcluster_comet_")?.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// What `/status` says under this name.
    pub fn status(&self, name: &str) -> serde_json::Value {
        self.process.status.report()[name].clone()
    }

    /// Sends the probe that this comet asked logic for back to it, as job does.
    pub async fn prove(&self, logic: &MemoryLogic) {
        let sent = || {
            let key = |said| if let Said::Probe { key } = said { Some(key) } else { None };
            logic.said().into_iter().find_map(key)
        };
        eventually("a probe is sent", || sent().is_some()).await;
        let not_here = self.push_keys(&[&sent().unwrap()], 0, raw(&[""]), vec![]).await;
        assert_eq!(not_here, [""; 0]);
        eventually("it is ready", || self.process.readiness.is_ready()).await;
    }

    /// How many connections ended for this reason.
    pub fn closed(&self, reason: &str) -> f64 {
        self.metric(&format!("closed_total{{reason=\"{reason}\"}}"))
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        self.process.shutdown.begin();
        within(self.running).await.unwrap().unwrap();
    }
}

/// A comet with defaults and its logic.
pub async fn comet(flags: &[&str]) -> (Comet, Arc<MemoryLogic>) {
    let logic = Arc::new(MemoryLogic::default());
    (Comet::start(flags, logic.clone()).await, logic)
}

/// One packet or more in a raw packet, as job sends them: op 1000 unless the text says `op:text`.
pub fn raw(messages: &[&str]) -> Proto {
    let mut body = Vec::new();
    for message in messages {
        let (op, text) = match message.split_once(':').map(|(op, text)| (op.parse(), text)) {
            Some((Ok(op), text)) => (op, text),
            _ => (1000, *message),
        };
        Packet::new(op, 0, text.as_bytes().to_vec()).encode(&mut body);
    }
    Proto { ver: 1, op: 9, seq: 0, body: body.into() }
}

/// The id of a record.
pub fn id(offset: u64) -> Id {
    Id { epoch: 7, partition: 3, offset, ..Default::default() }
}

/// Bytes written as hexadecimal digits with blanks between them.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The bytes of a packet.
pub fn packet(op: i32, seq: i32, body: impl Into<Bytes>) -> Vec<u8> {
    Packet::new(op, seq, body).to_bytes().to_vec()
}

/// Waits for the future, but not for ever.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes far too long")
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keys whose session was ended at logic, in order.
pub fn disconnected(logic: &MemoryLogic) -> Vec<String> {
    let ended = |said| if let Said::Disconnect { key, .. } = said { Some(key.to_string()) } else { None };
    logic.said().into_iter().filter_map(ended).collect()
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One client, over TCP or WebSocket, plain or TLS.
pub struct Client {
    stream: Box<dyn Stream>,
    pub is_ws: bool,
}

impl Client {
    pub async fn tcp(comet: &Comet) -> Self {
        Self::over(within(TcpStream::connect(comet.tcp)).await.unwrap(), false).await
    }

    pub async fn ws(comet: &Comet) -> Self {
        Self::over(within(TcpStream::connect(comet.ws)).await.unwrap(), true).await
    }

    /// Over TCP or WebSocket.
    pub async fn on(comet: &Comet, ws: bool) -> Self {
        if ws { Self::ws(comet).await } else { Self::tcp(comet).await }
    }

    /// Over a socket whose kernel holds little, so that a queue behind it fills soon.
    pub async fn narrow(comet: &Comet, ws: bool) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = if ws { comet.ws } else { comet.tcp };
        Self::over(within(socket.connect(address)).await.unwrap(), ws).await
    }

    /// Over this stream; upgrades it when it is a WebSocket.
    pub async fn over(stream: impl Stream + 'static, is_ws: bool) -> Self {
        let mut client = Self { stream: Box::new(stream), is_ws };
        if is_ws {
            client
                .write(
                    b"GET /sub HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie: a=b\r\n\r\n",
                )
                .await;
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            assert_eq!(String::from_utf8(client.read(answer.len()).await).unwrap(), answer);
        }
        client
    }

    /// Authenticates and takes the empty answer.
    pub async fn signed_in(comet: &Comet, ws: bool, token: &str) -> Self {
        let mut client = Self::on(comet, ws).await;
        client.sign_in(token).await;
        client
    }

    /// Authenticates and takes the empty answer.
    pub async fn sign_in(&mut self, token: &str) {
        self.send(&packet(7, 1, token.to_owned())).await;
        self.expect(&hex("00000010 0010 0001 00000008 00000001")).await;
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
        within(self.stream.flush()).await.unwrap();
    }

    /// Writes bytes as they are; the server may be gone.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within(self.stream.write_all(bytes)).await.is_ok() && within(self.stream.flush()).await.is_ok()
    }

    /// Says that nothing more will come from here; what the server says can still be read.
    pub async fn close_half(&mut self) {
        // A server that has closed already does not mind.
        let _closed = within(self.stream.shutdown()).await;
    }

    /// Sends one packet: bare, or as one binary message.
    pub async fn send(&mut self, packet: &[u8]) {
        match self.is_ws {
            false => self.write(packet).await,
            true => self.frame(frame::BINARY, packet).await,
        }
    }

    /// Sends one WebSocket frame.
    pub async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&masked(opcode, payload)).await;
    }

    /// The next bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.stream.read_exact(&mut bytes)).await.expect("more bytes");
        bytes
    }

    /// The next packet's bytes; on WebSocket the next message, with everything in it.
    pub async fn next(&mut self) -> Vec<u8> {
        if self.is_ws {
            let (opcode, payload) = self.next_frame().await;
            assert_eq!(opcode, frame::BINARY, "{payload:?}");
            return payload;
        }
        let mut bytes = self.read(packet::HEADER_LEN).await;
        let length = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes.extend(self.read(length - packet::HEADER_LEN).await);
        bytes
    }

    /// The next packet.
    pub async fn packet(&mut self) -> Packet {
        packet::decode_message(&self.next().await, usize::MAX / 2).unwrap().to_packet()
    }

    /// The next WebSocket frame: unmasked and unfragmented, as a server's are.
    pub async fn next_frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2).await;
        assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0), "unfragmented, no reserved bits, unmasked");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.read(2).await.try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.read(8).await.try_into().unwrap()) as usize,
            short => usize::from(short),
        };
        (head[0] & 0x0f, self.read(length).await)
    }

    /// The next packet is exactly these bytes.
    pub async fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.next().await, bytes);
    }

    /// What comes until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset ends it as well: the server closed with something of ours unread.
        let _closed = within(self.stream.read_to_end(&mut bytes)).await;
        bytes
    }

    /// The server closes without a byte.
    pub async fn closes(&mut self) {
        assert_eq!(self.rest().await, b"");
    }

    /// The server closes with this close code and nothing before it.
    pub async fn closes_with(&mut self, code: u16) {
        let mut expected = vec![0x88, 2];
        expected.extend(code.to_be_bytes());
        assert_eq!(self.rest().await, expected);
    }

    /// Nothing was sent to us: what comes next is the answer to this heartbeat.
    pub async fn got_nothing(&mut self) {
        assert_eq!(self.online(77).await.1, 77);
    }

    /// A heartbeat: how many are online, and the answer's seq.
    pub async fn online(&mut self, seq: i32) -> (i32, i32) {
        self.send(&packet(2, seq, "")).await;
        let reply = self.packet().await;
        assert_eq!((reply.op, reply.body.len()), (3, 4), "{reply:?}");
        (i32::from_be_bytes(reply.body[..].try_into().unwrap()), reply.seq)
    }

    /// The next push, whatever the transport: operations and bodies of its packets.
    pub async fn pushed(&mut self) -> Vec<(i32, String)> {
        let bytes = self.next().await;
        let packets = if self.is_ws { &bytes[16..] } else { &bytes[..] };
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        packet::packets(packets).map(|packet| packet.unwrap()).map(|packet| (packet.op, text(packet.body))).collect()
    }
}

/// A client's WebSocket frame.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_masked(opcode, payload, [1, 2, 3, 4], &mut bytes);
    bytes
}
