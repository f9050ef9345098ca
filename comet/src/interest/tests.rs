use proto::envelope::PushId;

use super::*;

fn room(name: &str) -> RoomId {
    name.into()
}

/// What a stream says now: rooms that began, rooms that ended, and whether these are all.
fn said(stream: &Stream) -> (Vec<String>, Vec<String>, bool) {
    let mut all = delivery::Interest::default();
    for part in stream.take().unwrap() {
        all.entered.extend(part.entered);
        all.left.extend(part.left);
        all.complete |= part.complete;
    }
    all.entered.sort();
    all.left.sort();
    (all.entered, all.left, all.complete)
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

#[test]
fn a_stream_is_told_of_every_room_and_then_of_what_changes() {
    let interest = Arc::new(Interest::default());
    interest.begin(&room("a"));
    interest.begin(&room("b"));
    let stream = interest.stream();
    interest.begin(&room("c"));
    assert_eq!(said(&stream), (names(["a", "b", "c"]), vec![], true));
    interest.begin(&room("d"));
    interest.end(&room("a"));
    assert_eq!(said(&stream), (names(["d"]), names(["a"]), false));
    assert_eq!(said(&stream), (vec![], vec![], false));
    let later = interest.stream();
    assert_eq!(said(&later), (names(["b", "c", "d"]), vec![], true));
}

#[test]
fn a_comet_without_rooms_says_so() {
    let stream = Arc::new(Interest::default()).stream();
    assert_eq!(said(&stream), (vec![], vec![], true));
}

#[test]
fn a_room_is_here_while_it_is_in_any_shard() {
    let interest = Arc::new(Interest::default());
    let stream = interest.stream();
    said(&stream);
    interest.begin(&room("a"));
    interest.begin(&room("a"));
    interest.end(&room("a"));
    assert_eq!(said(&stream), (names(["a"]), vec![], false));
    assert_eq!(interest.audience("a", None), Audience::Since(None));
    interest.end(&room("a"));
    assert_eq!(said(&stream), (vec![], names(["a"]), false));
    assert_eq!(interest.audience("a", None), Audience::Nobody);
}

#[test]
fn a_room_that_ends_and_begins_again_before_that_was_told_is_there() {
    let interest = Arc::new(Interest::default());
    interest.begin(&room("a"));
    let stream = interest.stream();
    said(&stream);
    interest.end(&room("a"));
    interest.begin(&room("a"));
    assert_eq!(said(&stream), (names(["a"]), vec![], false));
}

#[test]
fn what_had_been_seen_when_a_room_began_is_not_for_it() {
    let interest = Arc::new(Interest::default());
    let id = |offset| PushId { epoch: 1, partition: 2, offset };
    assert!(interest.owners().see("g", id(6), 1));
    interest.begin(&room("a"));
    assert!(interest.owners().see("g", id(9), 1));
    interest.begin(&room("b"));
    let is_old = |name: &str, offset| match interest.audience(name, None) {
        Audience::Since(Some(since)) => since.covers("g", id(offset)),
        other => panic!("{other:?}"),
    };
    assert_eq!([is_old("a", 6), is_old("a", 7), is_old("b", 9), is_old("b", 10)], [true, false, true, false]);
    assert_eq!(interest.through(), Through::from([(2, 10)]));
}

#[test]
fn a_list_that_is_long_is_told_in_pieces_and_is_complete_with_the_last() {
    let interest = Arc::new(Interest::default());
    let name = |number: usize| format!("live://{number:0>100}");
    (0..10_000).for_each(|number| interest.begin(&room(&name(number))));
    let pieces = interest.stream().take().unwrap();
    assert!(pieces.len() >= 4, "{} pieces", pieces.len());
    let complete: Vec<bool> = pieces.iter().map(|piece| piece.complete).collect();
    assert!(complete.iter().rev().skip(1).all(|complete| !complete) && complete.ends_with(&[true]));
    let mut all: Vec<String> = pieces.into_iter().flat_map(|piece| piece.entered).collect();
    all.sort();
    assert_eq!(all, (0..10_000).map(name).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_takes_nothing_for_too_long_is_to_end_and_holds_no_more() {
    let interest = Arc::new(Interest::default());
    let stream = interest.stream();
    said(&stream);
    let changes = MAX_CHANGES / (1000 + CHANGE);
    (0..changes).for_each(|number| interest.begin(&room(&format!("{number:01000}"))));
    assert!(interest.inner.lock().streams[stream.index].rooms.is_some(), "long names, but few");
    interest.begin(&room(&"x".repeat(1000)));
    assert!(stream.take().is_none());
    drop(stream);
    assert!(interest.inner.lock().streams.is_empty());
}

#[test]
fn of_what_had_been_seen_when_a_room_began_only_its_own_partition_is_kept_once_that_is_known() {
    let interest = Arc::new(Interest::default());
    for partition in 0..64 {
        assert!(interest.owners().see("g", PushId { epoch: 1, partition, offset: 6 }, 1));
    }
    interest.begin(&room("a"));
    interest.begin(&room("b"));
    let since = |name: &str, partition| match interest.audience(name, partition) {
        Audience::Since(Some(since)) => since,
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&since("a", None), &since("b", None)), "nothing was seen in between");
    assert_eq!(since("a", Some(3)).through(), Through::from([(3, 7)]));
    assert_eq!((since("a", None).through().len(), since("b", None).through().len()), (1, 64));
}
