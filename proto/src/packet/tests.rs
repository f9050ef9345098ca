use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn packets_are_goims_bytes() {
    for (packet, hex) in [
        (Packet::new(op::HEARTBEAT, 1, ""), "00000010 0010 0001 00000002 00000001"),
        (Packet::new(op::AUTH_REPLY, 1, ""), "00000010 0010 0001 00000008 00000001"),
        (Packet::new(op::HEARTBEAT_REPLY, 1, vec![0, 0, 0, 1]), "00000014 0010 0001 00000003 00000001 00000001"),
        (Packet::new(1000, 0, "m1"), "00000012 0010 0001 000003e8 00000000 6d31"),
    ] {
        assert_eq!(packet.to_bytes(), bytes(hex));
        let wire = bytes(hex);
        let (read, used) = decode(&wire, MAX_BODY).unwrap().unwrap();
        assert_eq!((read.to_packet(), used), (packet, wire.len()));
    }
}

#[test]
fn a_raw_body_is_its_packets_in_order() {
    let raw = bytes("00000012 0010 0001 000003e8 00000000 6d31  00000012 0010 0001 000003e9 00000000 6d32");
    let inner: Vec<_> = packets(&raw).map(|packet| packet.unwrap().to_packet()).collect();
    assert_eq!(inner, [Packet::new(1000, 0, "m1"), Packet::new(1001, 0, "m2")]);
    assert_eq!(
        super::raw(raw.into()).to_bytes(),
        bytes(
            "00000034 0010 0001 00000009 00000000
             00000012 0010 0001 000003e8 00000000 6d31  00000012 0010 0001 000003e9 00000000 6d32"
        )
    );
}

#[test]
fn a_raw_body_with_a_broken_end_yields_what_is_whole_and_an_error() {
    let mut raw = Packet::new(1000, 0, "m1").to_bytes().to_vec();
    raw.extend_from_slice(&[0, 0, 0, 99, 0]);
    let found: Vec<_> = packets(&raw).collect();
    assert!(found[0].is_ok());
    assert_eq!(found[1], Err(PacketError::BeyondMessage { packet: 99, message: 5 }));
    assert_eq!(found.len(), 2);
}

#[test]
fn the_largest_body_passes_and_one_more_byte_is_refused_by_its_header() {
    let largest = Packet::new(4, 7, vec![b'x'; MAX_BODY]).to_bytes();
    assert_eq!(decode(&largest, MAX_BODY).unwrap().unwrap().1, 4112);
    let beyond = bytes("00001011 0010 0001 00000004 00000007");
    assert_eq!(decode(&beyond, MAX_BODY), Err(PacketError::Length(4113)));
}

#[test]
fn lengths_that_hold_no_header_are_refused() {
    for (hex, length) in [("00000000", 0), ("0000000f", 15), ("ffffffff", -1), ("80000000", i32::MIN)] {
        let header = bytes(&format!("{hex} 0010 0001 00000002 00000001"));
        assert_eq!(decode(&header, MAX_BODY), Err(PacketError::Length(length)));
        assert_eq!(decode_message(&header, MAX_BODY), Err(PacketError::Length(length)));
    }
}

#[test]
fn a_header_length_other_than_sixteen_is_refused() {
    let header = bytes("00000011 0011 0001 00000002 00000001 00");
    assert_eq!(decode(&header, MAX_BODY), Err(PacketError::HeaderLength(17)));
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(decode(http, MAX_BODY).is_err());
}

#[test]
fn length_beyond_the_message_is_an_error() {
    let message = bytes("00000020 0010 0001 00000002 00000001 6162");
    assert_eq!(decode_message(&message, MAX_BODY), Err(PacketError::BeyondMessage { packet: 32, message: 18 }));
    assert_eq!(decode_message(&message[..9], MAX_BODY), Err(PacketError::BeyondMessage { packet: 16, message: 9 }));
}

#[test]
fn bytes_after_a_messages_packet_are_dropped() {
    let message = bytes("00000012 0010 0001 00000004 00000001 6162 6364");
    assert_eq!(decode_message(&message, MAX_BODY).unwrap().body, b"ab");
}

proptest! {
    #[test]
    fn any_packet_survives_any_split_of_the_stream(
        ver: i16, op: i32, seq: i32, body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..320,
    ) {
        let packet = Packet { ver, op, seq, body: body.into() };
        let whole = packet.to_bytes();
        let cut = cut.min(whole.len());
        if cut < whole.len() {
            prop_assert_eq!(decode(&whole[..cut], MAX_BODY).unwrap(), None);
        }
        let (read, used) = decode(&whole, MAX_BODY).unwrap().unwrap();
        prop_assert_eq!(used, whole.len());
        prop_assert_eq!(read.to_packet(), packet);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(junk in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _unchecked = decode(&junk, MAX_BODY);
        let _unchecked = decode_message(&junk, MAX_BODY);
        prop_assert!(packets(&junk).count() <= junk.len());
    }
}
