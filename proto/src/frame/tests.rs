use futures::{SinkExt, StreamExt};
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 8192;

fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_masked(opcode, payload, [1, 2, 3, 4], &mut frame);
    if !fin {
        frame[0] &= 0x7f;
    }
    frame
}

fn read_one(reader: &mut Reader, mut frame: Vec<u8>) -> Result<Option<Vec<u8>>, FrameError> {
    Ok(match reader.next(&mut frame)?.unwrap().0 {
        Event::Message(message) => Some(message.to_vec()),
        _ => None,
    })
}

#[test]
fn the_examples_of_the_rfc_are_read_and_written() {
    // RFC 6455 §5.7: "Hello", masked.
    let mut hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let (event, used) = Reader { ..Reader::server(LIMIT) }
        .next(&mut hello)
        .map(|found| {
            let (event, used) = found.unwrap();
            (matches!(event, Event::Message(b"Hello")), used)
        })
        .unwrap();
    assert!(event);
    assert_eq!(used, 11);
    for (length, header) in
        [(5, vec![0x82, 5]), (256, vec![0x82, 126, 1, 0]), (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
    {
        let mut out = Vec::new();
        put_header(BINARY, length, &mut out);
        assert_eq!(out, header);
    }
}

#[test]
fn fragments_become_one_message_with_a_ping_between_them() {
    let mut reader = Reader::server(LIMIT);
    assert_eq!(read_one(&mut reader, masked(false, TEXT, b"Hel")), Ok(None));
    let mut ping = masked(true, PING, b"are you there");
    assert!(matches!(reader.next(&mut ping), Ok(Some((Event::Ping(b"are you there"), _)))));
    assert_eq!(read_one(&mut reader, masked(true, CONTINUATION, b"lo")), Ok(Some(b"Hello".to_vec())));
    assert_eq!(read_one(&mut reader, masked(true, BINARY, b"next")), Ok(Some(b"next".to_vec())));
}

#[test]
fn a_message_of_102_frames_is_taken_and_the_103rd_is_refused() {
    let mut reader = Reader::server(LIMIT);
    for index in 0..101 {
        let opcode = if index == 0 { BINARY } else { CONTINUATION };
        assert_eq!(read_one(&mut reader, masked(false, opcode, b"x")), Ok(None));
    }
    assert_eq!(read_one(&mut reader, masked(true, CONTINUATION, b"x")).unwrap().unwrap().len(), 102);

    for index in 0..102 {
        let opcode = if index == 0 { BINARY } else { CONTINUATION };
        assert_eq!(read_one(&mut reader, masked(false, opcode, b"")), Ok(None));
    }
    assert_eq!(read_one(&mut reader, masked(true, CONTINUATION, b"")), Err(FrameError::TooLarge));
}

#[test]
fn what_breaks_the_protocol_is_refused_by_its_header() {
    for (bytes, error) in [
        (vec![0xc2, 0x80], FrameError::Reserved),
        (vec![0x83, 0x80], FrameError::Opcode(3)),
        (vec![0x82, 0x05], FrameError::Mask),
        (vec![0x09, 0x80], FrameError::Control),
        (vec![0x89, 0xfe], FrameError::Control),
        (vec![0x80, 0x80], FrameError::Fragments),
        (vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge),
        (vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge),
        (vec![0x82, 0xfe, 0x20, 0x01], FrameError::TooLarge),
    ] {
        assert_eq!(Reader::server(LIMIT).next(&mut bytes.clone()).unwrap_err(), error, "{bytes:x?}");
    }
    let mut reader = Reader::server(LIMIT);
    assert_eq!(read_one(&mut reader, masked(false, BINARY, b"a")), Ok(None));
    assert_eq!(read_one(&mut reader, masked(true, BINARY, b"b")), Err(FrameError::Fragments));
}

#[test]
fn fragments_may_not_add_up_beyond_the_limit() {
    let mut reader = Reader::server(10);
    assert_eq!(read_one(&mut reader, masked(false, BINARY, b"12345678")), Ok(None));
    assert_eq!(read_one(&mut reader, masked(true, CONTINUATION, b"901")), Err(FrameError::TooLarge));
}

#[test]
fn a_close_carries_its_code() {
    let mut frame = masked(true, CLOSE, &[0x03, 0xe8]);
    assert!(matches!(Reader::server(LIMIT).next(&mut frame), Ok(Some((Event::Close(Some(1000)), _)))));
    let mut frame = masked(true, CLOSE, &[]);
    assert!(matches!(Reader::server(LIMIT).next(&mut frame), Ok(Some((Event::Close(None), _)))));
}

#[tokio::test]
async fn an_independent_client_reads_what_is_written_and_is_understood() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_websockets::{ClientBuilder, Message};

    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut client = ClientBuilder::new().take_over(near);
    for size in [0, 1, 125, 126, 4000, LIMIT] {
        client.send(Message::binary(vec![7; size])).await.unwrap();
        let mut stream = Vec::new();
        let mut reader = Reader::server(LIMIT);
        loop {
            far.read_buf(&mut stream).await.unwrap();
            if let Some((Event::Message(message), _)) = reader.next(&mut stream).unwrap() {
                assert_eq!(message, vec![7; size]);
                break;
            }
        }
        let mut out = Vec::new();
        put_header(BINARY, size * 9, &mut out);
        out.resize(out.len() + size * 9, 5);
        far.write_all(&out).await.unwrap();
        assert_eq!(&client.next().await.unwrap().unwrap().into_payload()[..], vec![5; size * 9]);
    }
}

proptest! {
    #[test]
    fn any_message_survives_any_fragmentation_and_any_split(
        message in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(0usize..600, 0..6),
        chunk in 1usize..50,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(message.len())).collect();
        cuts.sort_unstable();
        let mut wire = Vec::new();
        let mut start = 0;
        for (index, end) in cuts.iter().copied().chain([message.len()]).enumerate() {
            let opcode = if index == 0 { BINARY } else { CONTINUATION };
            wire.extend(masked(index == cuts.len(), opcode, &message[start..end]));
            start = end;
        }
        let mut reader = Reader::server(LIMIT);
        let mut stream = Vec::new();
        let mut found = None;
        for part in wire.chunks(chunk) {
            stream.extend_from_slice(part);
            while let Some((event, used)) = reader.next(&mut stream).unwrap() {
                if let Event::Message(whole) = event {
                    found = Some(whole.to_vec());
                }
                stream.drain(..used);
            }
        }
        prop_assert_eq!(found, Some(message));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::server(64);
        let mut at = 0;
        while let Ok(Some((_, used))) = reader.next(&mut junk[at..]) {
            prop_assert!(used > 0);
            at += used;
        }
    }
}
