//! Packets and frames on the wire: goim's bytes, and what ends a connection.

use comet::logic::memory::Said;
use proto::frame::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

use crate::support::*;

const TOKEN: &str = r#"{"mid":1,"key":"k","room_id":"live://1","accepts":[1000,1001]}"#;
const HEARTBEAT: &str = "00000010 0010 0001 00000002 00000001";
const ONLINE_1: &str = "00000014 0010 0001 00000003 00000001 00000001";

/// A frame with its first byte as given: opcode, end and reserved bits.
fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = masked(first & 0x0f, payload);
    bytes[0] = first;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn goims_golden_bytes_over_tcp() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.write(&packet(7, 1, TOKEN)).await;
    assert_eq!(client.read(16).await, hex("00000010 0010 0001 00000008 00000001"));
    client.write(&hex(HEARTBEAT)).await;
    assert_eq!(client.read(20).await, hex(ONLINE_1));
    comet.push_room("live://1", &["1000:m1", "1001:m2"]).await;
    let pushed = "00000012 0010 0001 000003e8 00000000 6d31 00000012 0010 0001 000003e9 00000000 6d32";
    assert_eq!(client.read(36).await, hex(pushed));
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goims_golden_bytes_over_websocket() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::ws(&comet).await;
    client.frame(BINARY, &packet(7, 1, TOKEN)).await;
    assert_eq!(client.read(18).await, hex("82 10 00000010 0010 0001 00000008 00000001"));
    client.frame(BINARY, &hex(HEARTBEAT)).await;
    assert_eq!(client.read(22).await, hex(&format!("82 14 {ONLINE_1}")));
    comet.push_room("live://1", &["1000:m1", "1001:m2"]).await;
    let pushed = "82 34 00000034 0010 0001 00000009 00000000 \
        00000012 0010 0001 000003e8 00000000 6d31 00000012 0010 0001 000003e9 00000000 6d32";
    assert_eq!(client.read(54).await, hex(pushed));
    comet.push_room("live://1", &["one"]).await;
    let single = "82 23 00000023 0010 0001 00000009 00000000 00000013 0010 0001 000003e8 00000000 6f6e65";
    assert_eq!(client.read(37).await, hex(single), "a single message has the outer header as well");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_sequence_are_anything_and_come_back() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"mid":1}"#).await;
        client.send(&hex("00000010 0010 0000 00000002 80000000")).await;
        client.expect(&hex("00000014 0010 0000 00000003 80000000 00000000")).await;
        client.send(&hex("00000012 0010 ffff 0000000e ffffffff 3939")).await;
        client.expect(&hex("00000012 0010 ffff 0000000f ffffffff 3939")).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_length_that_is_not_16_closes() {
    let (comet, _) = comet(&[]).await;
    for bytes in ["00000010 0011 0001 00000002 00000001", "00000010 000f 0001 00000002 00000001"] {
        let mut client = Client::signed_in(&comet, false, r#"{"key":"t"}"#).await;
        client.write(&hex(bytes)).await;
        client.closes().await;
        let mut client = Client::signed_in(&comet, true, r#"{"key":"w"}"#).await;
        client.send(&hex(bytes)).await;
        client.closes_with(1002).await;
    }
    assert_eq!(comet.closed("bad_packet"), 4.0);
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_4096_is_taken_and_one_of_4097_closes() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::signed_in(&comet, ws, r#"{"key":"k"}"#).await;
        client.send(&packet(12, 5, vec![b'r'; 4096])).await;
        client.expect(&packet(13, 5, vec![b'r'; 4096])).await;
        client.send(&packet(12, 6, vec![b'r'; 4097])).await;
        match ws {
            false => client.closes().await,
            true => client.closes_with(1002).await,
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_length_below_16_closes() {
    let (comet, _) = comet(&[]).await;
    for length in ["00000000", "0000000f", "ffffffff", "80000000"] {
        for ws in [false, true] {
            let mut client = Client::signed_in(&comet, ws, r#"{"key":"k"}"#).await;
            client.send(&hex(&format!("{length} 0010 0001 00000002 00000001"))).await;
            match ws {
                false => client.closes().await,
                true => client.closes_with(1002).await,
            }
        }
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn length_beyond_the_message_closes() {
    let (comet, logic) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    client.send(&hex("00000074 0010 0001 0000000e 00000001 31303030")).await;
    client.closes_with(1002).await;
    let mut client = Client::ws(&comet).await;
    client.send(&hex("00001010 0010 0001 00000007 00000001 7b7d")).await;
    client.closes_with(1002).await;
    let said = logic.said();
    let connects: Vec<_> = said.iter().filter(|said| matches!(said, Said::Connect { .. })).collect();
    assert_eq!(connects.len(), 1, "the second was never asked about");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_shorter_than_a_header_closes() {
    let (comet, _) = comet(&[]).await;
    for message in [&b""[..], b"0123456789abcde"] {
        let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
        client.send(message).await;
        client.closes_with(1002).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_message_with_more_than_a_packet_only_the_first_packet_counts() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    let mut two = packet(14, 3, "1000");
    two.extend(packet(14, 4, "1001"));
    client.send(&two).await;
    client.expect(&packet(15, 3, "1000")).await;
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_protocol_close_a_tcp_connection_silently() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::tcp(&comet).await;
    client.write(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    client.closes().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_come_in_any_segments() {
    let (comet, _) = comet(&[]).await;
    for ws in [false, true] {
        let mut client = Client::on(&comet, ws).await;
        let packets = [packet(7, 1, TOKEN), packet(2, 2, ""), packet(14, 3, "7")];
        let stream: Vec<u8> =
            packets.iter().flat_map(|packet| if ws { masked(BINARY, packet) } else { packet.clone() }).collect();
        for byte in stream {
            client.write(&[byte]).await;
        }
        client.expect(&packet(8, 1, "")).await;
        assert_eq!(client.packet().await.op, 3);
        client.expect(&packet(15, 3, "7")).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_binary_messages_are_the_same() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::ws(&comet).await;
    client.frame(TEXT, &packet(7, 1, TOKEN)).await;
    client.expect(&packet(8, 1, "")).await;
    client.frame(TEXT, &hex(HEARTBEAT)).await;
    assert_eq!(client.read(22).await, hex(&format!("82 14 {ONLINE_1}")), "the answer is binary");
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_without_a_mask_closes() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    client.write(&hex(&format!("82 10 {HEARTBEAT}"))).await;
    client.closes_with(1002).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_are_put_together_also_around_a_ping() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, TOKEN).await;
    let heartbeat = hex(HEARTBEAT);
    client.write(&frame_of(0x02, &heartbeat[..5])).await;
    client.frame(PING, b"p").await;
    client.write(&frame_of(CONTINUATION, &heartbeat[5..10])).await;
    client.write(&frame_of(0x80, &heartbeat[10..])).await;
    assert_eq!(client.next_frame().await, (PONG, b"p".to_vec()));
    client.expect(&hex(ONLINE_1)).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_102_frames_is_taken_and_the_103rd_closes() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, TOKEN).await;
    let mut message = frame_of(0x02, &hex(HEARTBEAT));
    (0..100).for_each(|_| message.extend(frame_of(CONTINUATION, b"")));
    let mut fits = message.clone();
    fits.extend(frame_of(0x80, b""));
    client.write(&fits).await;
    client.expect(&hex(ONLINE_1)).await;
    message.extend(frame_of(CONTINUATION, b""));
    message.extend(frame_of(0x80, b""));
    client.write(&message).await;
    client.closes_with(1009).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_bits_and_unknown_opcodes_close() {
    let (comet, _) = comet(&[]).await;
    for first in [0xc2, 0xa2, 0x92, 0x83, 0x87, 0x8b, 0x8f] {
        let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
        client.write(&frame_of(first, &hex(HEARTBEAT))).await;
        client.closes_with(1002).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_beyond_8192_closes_by_its_header_alone() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    let mut longest = packet(14, 1, "1");
    longest.resize(8192, 0);
    client.send(&longest).await;
    client.expect(&packet(15, 1, "1")).await;
    for announced in ["82 fe 2001", "82 ff 7fffffffffffffff", "82 ff ffffffffffffffff"] {
        let mut client = Client::signed_in(&comet, true, r#"{"key":"k2"}"#).await;
        client.write(&hex(announced)).await;
        client.closes_with(1009).await;
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_at_once_with_its_payload_and_a_pong_is_ignored() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, TOKEN).await;
    client.frame(PING, b"hello").await;
    assert_eq!(client.read(7).await, b"\x8a\x05hello");
    client.frame(PING, &[7; 125]).await;
    assert_eq!(client.next_frame().await, (PONG, vec![7; 125]));
    client.frame(PONG, b"x").await;
    client.got_nothing().await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_beside_requests_and_pushes_keep_every_frame_whole() {
    let (comet, _) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, TOKEN).await;
    for round in 0..50 {
        client.frame(PING, b"ping").await;
        client.send(&packet(2, round, "")).await;
        comet.push_room("live://1", &["x"]).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (opcode, payload) = client.next_frame().await;
            seen.push(match opcode {
                PONG => payload,
                _ => payload[8..12].to_vec(),
            });
        }
        seen.sort();
        assert_eq!(seen, [hex("00000003"), hex("00000009"), b"ping".to_vec()]);
    }
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_answered_and_the_session_ended() {
    let (comet, logic) = comet(&[]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    client.frame(CLOSE, &hex("03e9")).await;
    client.closes_with(1001).await;
    eventually("logic is told", || disconnected(&logic) == ["k"]).await;
    let mut client = Client::signed_in(&comet, true, r#"{"key":"k"}"#).await;
    client.frame(CLOSE, b"").await;
    client.closes_with(1000).await;
    eventually("both are counted", || comet.closed("gone") == 2.0).await;
    comet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_any_size_is_written_whole_with_the_length_that_fits() {
    let (comet, _) = comet(&[]).await;
    let mut clients = Vec::new();
    for ws in [false, true] {
        clients.push(Client::signed_in(&comet, ws, &format!(r#"{{"key":"{ws}","room_id":"r"}}"#)).await);
    }
    for size in [1, 80, 109, 110, 1000, 65_503, 65_504, 100_000, 3 << 20] {
        let body = "x".repeat(size);
        comet.push_room("r", &[&body]).await;
        for client in &mut clients {
            assert_eq!(client.pushed().await, [(1000, body.clone())]);
        }
    }
    comet.stop().await;
}
