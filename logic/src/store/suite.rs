//! What every session store must do, as one suite: run against memory in this crate and against real Redis in `e2e`.
//!
//! Names are drawn anew for every run, so that runs can share one Redis. Each check is a sentence; a failure panics.
#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::logic::CometInfo;
use proto::{Key, Mid, RoomId, ServerId};
use tokio::time::{Instant, sleep};

use super::{Connected, Held, Noted, ServerOnline, Session, SessionStore};

const LONG: Duration = Duration::from_secs(1800);
const SHORT: Duration = Duration::from_secs(1);

/// Runs every check.
///
/// # Panics
/// When a check fails.
pub async fn run(store: Arc<dyn SessionStore>) {
    let suite = Suite { store, run: rand::random_range(1..i64::MAX / 1000) };
    suite.a_session_is_found_by_key_and_by_mid_until_it_ends().await;
    suite.an_anonymous_session_has_no_mid_entry().await;
    suite.a_members_devices_are_all_found().await;
    suite.a_late_disconnect_leaves_the_session_that_replaced_it().await;
    suite.a_key_that_moves_names_the_server_it_left().await;
    suite.a_session_is_later_than_the_one_before_it_whatever_the_clocks_say().await;
    suite.the_others_of_a_member_come_oldest_first().await;
    suite.a_heartbeat_brings_a_lost_session_back().await;
    suite.a_heartbeat_does_not_take_a_key_back_from_its_new_server().await;
    suite.a_heartbeat_takes_a_key_back_from_a_session_that_was_made_before_it().await;
    suite.a_heartbeat_does_not_keep_another_servers_entry_alive().await;
    suite.a_session_expires_unless_refreshed().await;
    suite.a_dead_device_goes_while_another_of_the_member_lives().await;
    suite.counts_are_what_the_server_last_said().await;
    suite.a_room_that_empties_is_gone_at_the_next_renewal().await;
    suite.counts_are_purged_only_if_they_have_not_changed().await;
    suite.a_comet_is_listed_with_what_it_said_of_itself().await;
    suite.every_renewal_shows_as_a_change().await;
    suite.a_dead_incarnation_takes_its_sessions_with_it().await;
    suite.a_purge_spares_what_moved_and_what_came_back().await;
    suite.a_purge_takes_more_than_one_batch().await;
    suite.what_a_comet_registers_again_is_as_if_it_had_never_gone().await;
    suite.every_session_that_is_noted_for_an_incarnation_is_told_of().await;
    suite.an_older_connection_takes_nothing_from_a_later_one_and_a_later_one_does().await;
    suite.the_epoch_stays_while_nothing_is_lost().await;
    suite.many_keys_are_located_in_order().await;
    suite.store.ping().await.unwrap();
}

struct Suite {
    store: Arc<dyn SessionStore>,
    run: i64,
}

impl Suite {
    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    fn key(&self, name: &str) -> Key {
        self.name(name).into()
    }

    fn server(&self, name: &str) -> ServerId {
        self.name(name).into()
    }

    fn mid(&self, n: i64) -> Mid {
        Mid(self.run * 1000 + n)
    }

    fn session(&self, mid: i64, key: &str, server: &str) -> Session {
        let mid = if mid > 0 { self.mid(mid) } else { Mid(mid) };
        Session { mid, key: self.key(key), server: self.server(server), incarnation: 1 }
    }

    async fn connect(&self, session: &Session) -> Connected {
        self.store.connect(session, LONG).await.unwrap()
    }

    async fn beat(&self, session: &Session, since_ms: u64) {
        self.store.heartbeat(&Held { session: session.clone(), since_ms }, LONG).await.unwrap();
    }

    async fn at(&self, session: &Session) -> Option<ServerId> {
        self.store.locate_keys(std::slice::from_ref(&session.key)).await.unwrap().pop().unwrap()
    }

    async fn of(&self, mid: Mid) -> Vec<(Key, ServerId)> {
        let mut found = self.store.locate_mids(&[mid]).await.unwrap();
        found.sort();
        found
    }

    async fn renew(&self, server: &ServerId, rooms: &[(&str, i32)], info: Option<&CometInfo>) {
        let rooms: BTreeMap<RoomId, i32> = rooms.iter().map(|(room, count)| ((*room).into(), *count)).collect();
        self.store.renew_online(server, &rooms, info, LONG).await.unwrap();
    }

    async fn rooms(&self, server: &ServerId) -> Vec<(String, i32)> {
        let online = self.store.online(server).await.unwrap().unwrap_or_default();
        let mut rooms: Vec<_> = online.rooms.iter().map(|(room, count)| (room.to_string(), *count)).collect();
        rooms.sort();
        rooms
    }

    async fn renewal(&self, server: &ServerId, incarnation: u64) -> Option<i64> {
        let seen = self.store.servers().await.unwrap();
        seen.iter().find(|seen| &seen.server == server && seen.incarnation == incarnation).map(|seen| seen.renewal)
    }

    async fn a_session_is_found_by_key_and_by_mid_until_it_ends(&self) {
        let session = self.session(1, "k1", "s1");
        assert_eq!(self.at(&session).await, None);
        let Connected { replaced, before_ms, others, .. } = self.connect(&session).await;
        assert_eq!((replaced, before_ms, others), (None, None, vec![]));
        assert_eq!(self.at(&session).await, Some(session.server.clone()));
        assert_eq!(self.of(session.mid).await, [(session.key.clone(), session.server.clone())]);
        assert!(self.store.disconnect(&session).await.unwrap());
        assert_eq!(self.at(&session).await, None);
        assert_eq!(self.of(session.mid).await, []);
        assert!(!self.store.disconnect(&session).await.unwrap());
    }

    async fn an_anonymous_session_has_no_mid_entry(&self) {
        for mid in [0, -7] {
            let session = self.session(mid, "anonymous", "s1");
            let Connected { replaced, before_ms, others, .. } = self.connect(&session).await;
            assert_eq!((replaced, before_ms, others), (None, None, vec![]));
            assert_eq!(self.at(&session).await, Some(session.server.clone()));
            assert_eq!(self.of(Mid(mid)).await, []);
            assert!(self.store.disconnect(&session).await.unwrap());
        }
    }

    async fn a_members_devices_are_all_found(&self) {
        let (phone, web) = (self.session(2, "phone", "s1"), self.session(2, "web", "s2"));
        self.connect(&phone).await;
        self.connect(&web).await;
        let both = [(phone.key.clone(), phone.server.clone()), (web.key.clone(), web.server.clone())];
        assert_eq!(self.of(phone.mid).await, both);
        assert!(self.store.disconnect(&phone).await.unwrap());
        assert_eq!(self.of(phone.mid).await, both[1..]);
    }

    /// goim's D4: there the old connection's end removed the new session.
    async fn a_late_disconnect_leaves_the_session_that_replaced_it(&self) {
        let (old, new) = (self.session(3, "k3", "s1"), self.session(3, "k3", "s2"));
        self.connect(&old).await;
        self.connect(&new).await;
        assert!(self.store.disconnect(&old).await.unwrap());
        assert_eq!(self.at(&new).await, Some(new.server.clone()));
        assert_eq!(self.of(new.mid).await, [(new.key.clone(), new.server.clone())]);
    }

    /// goim's D30: there the old socket stayed open and nobody knew.
    async fn a_key_that_moves_names_the_server_it_left(&self) {
        let (old, new) = (self.session(4, "k4", "s1"), self.session(4, "k4", "s2"));
        self.connect(&old).await;
        assert_eq!(self.connect(&old).await.replaced, None);
        let moved = self.connect(&new).await;
        assert_eq!((moved.replaced, moved.others), (Some(old.server.clone()), vec![]));
    }

    async fn a_session_is_later_than_the_one_before_it_whatever_the_clocks_say(&self) {
        let (old, new) = (self.session(13, "k13", "s1"), self.session(13, "k13", "s2"));
        let first = self.connect(&old).await;
        let again = self.connect(&old).await;
        assert!(again.since_ms > first.since_ms && again.before_ms == Some(first.since_ms), "{first:?} {again:?}");
        // Noted by a logic whose clock is an hour ahead.
        assert!(self.store.disconnect(&old).await.unwrap());
        let ahead = proto::log::now_ms() + 3_600_000;
        self.beat(&old, ahead).await;
        let moved = self.connect(&new).await;
        assert_eq!((moved.since_ms, moved.before_ms), (ahead + 1, Some(ahead)));
        let back = self.connect(&old).await;
        assert_eq!((back.since_ms, back.before_ms), (ahead + 2, Some(ahead + 1)));
        let nobodys = self.session(0, "nobodys13", "s1");
        let first = self.connect(&nobodys).await;
        let moved = self.connect(&Session { server: self.server("s2"), ..nobodys }).await;
        assert!(moved.since_ms > first.since_ms && moved.before_ms.is_none(), "{first:?} {moved:?}");
    }

    async fn the_others_of_a_member_come_oldest_first(&self) {
        for key in ["c", "a", "b"] {
            self.connect(&self.session(5, key, "s1")).await;
            sleep(Duration::from_millis(3)).await;
        }
        let others = self.connect(&self.session(5, "d", "s2")).await.others;
        let expected = ["c", "a", "b"].map(|key| (self.key(key), self.server("s1")));
        assert_eq!(others, expected);
    }

    async fn a_heartbeat_brings_a_lost_session_back(&self) {
        let session = self.session(6, "k6", "s1");
        self.beat(&session, 0).await;
        assert_eq!(self.at(&session).await, Some(session.server.clone()));
        assert_eq!(self.of(session.mid).await, [(session.key.clone(), session.server.clone())]);
    }

    async fn a_heartbeat_does_not_take_a_key_back_from_its_new_server(&self) {
        let (old, new) = (self.session(7, "k7", "s1"), self.session(7, "k7", "s2"));
        self.connect(&old).await;
        self.connect(&new).await;
        self.beat(&old, 0).await;
        assert_eq!(self.at(&new).await, Some(new.server.clone()));
        assert_eq!(self.of(new.mid).await, [(new.key.clone(), new.server.clone())]);
    }

    /// A refused move that was carried out all the same: nobody holds that connection.
    async fn a_heartbeat_takes_a_key_back_from_a_session_that_was_made_before_it(&self) {
        let (ghost, live) = (self.session(11, "k11", "ghost"), self.session(11, "k11", "live"));
        let later = proto::log::now_ms() + 60_000;
        self.connect(&ghost).await;
        self.beat(&live, later).await;
        assert_eq!(self.at(&live).await, Some(ghost.server.clone()), "it may just be coming in");
        // One that has been there for so long that it has this much left.
        self.store.connect(&ghost, LONG / 2).await.unwrap();
        self.beat(&live, 1000).await;
        assert_eq!(self.at(&live).await, Some(ghost.server.clone()), "it is the later one");
        self.beat(&live, later).await;
        assert_eq!(self.at(&live).await, Some(live.server.clone()));
        assert_eq!(self.of(live.mid).await, [(live.key.clone(), live.server.clone())]);
        self.store.connect(&self.session(0, "nobodys", "ghost"), LONG / 2).await.unwrap();
        let nobodys = self.session(0, "nobodys", "live");
        self.beat(&nobodys, later).await;
        assert_eq!(self.at(&nobodys).await, Some(ghost.server), "nobody knows since when");
    }

    async fn a_heartbeat_does_not_keep_another_servers_entry_alive(&self) {
        let (here, there) = (self.session(12, "k12", "here"), self.session(12, "k12", "there"));
        self.store.connect(&here, SHORT).await.unwrap();
        self.beat(&there, 0).await;
        self.gone(&here).await;
    }

    async fn a_session_expires_unless_refreshed(&self) {
        let (lost, kept) = (self.session(8, "lost", "s1"), self.session(9, "kept", "s1"));
        for session in [&lost, &kept] {
            self.store.connect(session, SHORT).await.unwrap();
        }
        self.beat(&kept, 0).await;
        self.gone(&lost).await;
        // The member's entry was written after the key, so it may live a moment longer.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.of(lost.mid).await.is_empty() {
            assert!(Instant::now() < deadline, "the member's entry did not expire");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(self.at(&kept).await, Some(kept.server.clone()));
        assert_eq!(self.of(kept.mid).await.len(), 1);
    }

    /// goim's D18: there the hash fields of dead devices lived as long as any device of the member refreshed it.
    async fn a_dead_device_goes_while_another_of_the_member_lives(&self) {
        let (dead, alive) = (self.session(10, "dead", "s1"), self.session(10, "alive", "s1"));
        self.store.connect(&dead, SHORT).await.unwrap();
        self.connect(&alive).await;
        self.gone(&dead).await;
        self.beat(&alive, 0).await;
        assert_eq!(self.of(alive.mid).await, [(alive.key.clone(), alive.server.clone())]);
        assert_eq!(self.connect(&self.session(10, "next", "s1")).await.others.len(), 1);
    }

    async fn counts_are_what_the_server_last_said(&self) {
        let server = self.server("counted");
        assert_eq!(self.store.online(&server).await.unwrap(), None);
        self.renew(&server, &[("test://1", 2), ("live://1000", 3), ("a \"quoted\" room <&>", 1)], None).await;
        let rooms =
            [("a \"quoted\" room <&>".to_owned(), 1), ("live://1000".to_owned(), 3), ("test://1".to_owned(), 2)];
        assert_eq!(self.rooms(&server).await, rooms);
    }

    /// goim's D19: there a room that emptied kept its last count while any other shard stayed fresh.
    async fn a_room_that_empties_is_gone_at_the_next_renewal(&self) {
        let server = self.server("emptied");
        self.renew(&server, &[("test://1", 2), ("live://1000", 3)], None).await;
        self.renew(&server, &[("live://1000", 4)], None).await;
        assert_eq!(self.rooms(&server).await, [("live://1000".to_owned(), 4)]);
        self.renew(&server, &[], None).await;
        assert_eq!(self.rooms(&server).await, []);
    }

    /// goim's D29: there one logic's clock could delete what another had just written.
    async fn counts_are_purged_only_if_they_have_not_changed(&self) {
        let server = self.server("purged");
        self.renew(&server, &[("test://1", 2)], None).await;
        let ServerOnline { updated, .. } = self.store.online(&server).await.unwrap().unwrap();
        self.store.purge_online(&server, updated - 1).await.unwrap();
        assert_eq!(self.rooms(&server).await.len(), 1);
        self.store.purge_online(&server, updated).await.unwrap();
        assert_eq!(self.store.online(&server).await.unwrap(), None);
    }

    async fn a_comet_is_listed_with_what_it_said_of_itself(&self) {
        let server = self.server("listed");
        let mut info = CometInfo {
            incarnation: u64::MAX,
            host: "listed".into(),
            addrs: vec!["1.2.3.4".into()],
            weight: 10,
            offline: true,
            conn_count: 7,
            ..CometInfo::default()
        };
        for conn_count in [7, 8] {
            info.conn_count = conn_count;
            self.renew(&server, &[], Some(&info)).await;
            let comets = self.store.comets().await.unwrap();
            assert_eq!(comets.iter().find(|(id, _)| *id == server).map(|(_, found)| found), Some(&info));
        }
        assert!(self.renewal(&server, u64::MAX).await.is_some());
    }

    async fn every_renewal_shows_as_a_change(&self) {
        let server = self.server("renewed");
        self.renew(&server, &[], None).await;
        let first = self.renewal(&server, 0).await.unwrap();
        sleep(Duration::from_millis(3)).await;
        self.renew(&server, &[], None).await;
        assert_ne!(self.renewal(&server, 0).await.unwrap(), first);
        self.store.purge_server(&server, 0).await.unwrap();
        assert_eq!(self.renewal(&server, 0).await, None);
    }

    /// goim's D18: there the sessions of a comet that crashed lingered for half an hour.
    async fn a_dead_incarnation_takes_its_sessions_with_it(&self) {
        let info = CometInfo { incarnation: 1, ..CometInfo::default() };
        let sessions = [self.session(20, "x", "dead"), self.session(20, "y", "dead"), self.session(0, "z", "dead")];
        self.renew(&sessions[0].server, &[], Some(&info)).await;
        for session in &sessions {
            self.connect(session).await;
        }
        let server = &sessions[0].server;
        assert_eq!(self.store.purge_server(server, 1).await.unwrap(), 3);
        for session in &sessions {
            assert_eq!(self.at(session).await, None);
        }
        assert_eq!(self.of(sessions[0].mid).await, []);
        assert_eq!(self.renewal(server, 1).await, None);
        assert_eq!(self.store.purge_server(server, 1).await.unwrap(), 0);
    }

    async fn a_purge_spares_what_moved_and_what_came_back(&self) {
        let info = |incarnation| CometInfo { incarnation, ..CometInfo::default() };
        let moved = self.session(21, "moved", "crashed");
        let back = self.session(21, "back", "crashed");
        let lost = self.session(21, "lost", "crashed");
        self.renew(&moved.server, &[], Some(&info(1))).await;
        for session in [&moved, &back, &lost] {
            self.connect(session).await;
        }
        self.renew(&moved.server, &[], Some(&info(2))).await;
        let elsewhere = Session { server: self.server("healthy"), ..moved.clone() };
        self.connect(&elsewhere).await;
        self.connect(&Session { incarnation: 2, ..back.clone() }).await;
        assert_eq!(self.store.purge_server(&moved.server, 1).await.unwrap(), 1);
        assert_eq!(self.at(&moved).await, Some(elsewhere.server.clone()));
        assert_eq!(self.at(&back).await, Some(back.server.clone()));
        assert_eq!(self.at(&lost).await, None);
        assert_eq!(self.of(moved.mid).await, [(back.key, back.server.clone()), (moved.key, elsewhere.server)]);
        assert!(self.renewal(&back.server, 2).await.is_some());
    }

    async fn a_purge_takes_more_than_one_batch(&self) {
        let sessions: Vec<_> = (0..1200).map(|n| self.session(0, &format!("many{n}"), "large")).collect();
        futures::future::join_all(sessions.iter().map(|session| self.connect(session))).await;
        assert_eq!(self.store.purge_server(&sessions[0].server, 1).await.unwrap(), 1200);
    }

    async fn what_a_comet_registers_again_is_as_if_it_had_never_gone(&self) {
        let held: Vec<Held> = (0..1200)
            .map(|n| self.session(if n < 600 { 3000 + n } else { 0 }, &format!("again{n}"), "again"))
            .map(|session| Held { session, since_ms: 1000 })
            .collect();
        self.connect(&held[5].session).await;
        self.store.register(&held, LONG).await.unwrap();
        self.store.register(&held, LONG).await.unwrap();
        let keys: Vec<Key> = held.iter().map(|held| held.session.key.clone()).collect();
        let server = self.server("again");
        let found = self.store.locate_keys(&keys).await.unwrap();
        assert!(found.iter().all(|found| found.as_ref() == Some(&server)));
        assert_eq!(self.of(self.mid(3007)).await, [(keys[7].clone(), server.clone())]);
        assert_eq!(self.store.purge_server(&server, 1).await.unwrap(), 1200);
        self.store.register(&[], LONG).await.unwrap();
    }

    async fn every_session_that_is_noted_for_an_incarnation_is_told_of(&self) {
        let sessions: Vec<Session> =
            (0..600).map(|n| self.session(if n < 300 { n } else { -1 }, &format!("noted {n}"), "noting")).collect();
        futures::future::join_all(sessions.iter().map(|session| self.connect(session))).await;
        self.connect(&Session { incarnation: 2, ..self.session(0, "later", "noting") }).await;
        self.connect(&self.session(0, "other", "not noting")).await;
        let server = self.server("noting");
        let mut found: BTreeMap<Key, Mid> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let noted = self.store.noted(&server, 1, &cursor).await.unwrap();
            assert!(noted.sessions.len() < 600, "some at a time");
            found.extend(noted.sessions.into_iter().map(|(mid, key)| (key, mid)));
            if noted.cursor.is_empty() {
                break;
            }
            cursor = noted.cursor;
        }
        assert_eq!(found, sessions.iter().map(|session| (session.key.clone(), session.mid)).collect());
        let ended = futures::future::join_all(sessions.iter().map(|session| self.store.disconnect(session))).await;
        assert!(ended.into_iter().all(|had| had.unwrap()));
        assert_eq!(self.store.noted(&server, 1, "").await.unwrap(), Noted::default());
    }

    async fn an_older_connection_takes_nothing_from_a_later_one_and_a_later_one_does(&self) {
        let (here, there) = (self.session(23, "both", "here"), self.session(23, "both", "there"));
        self.connect(&here).await;
        let held = |session: &Session, since_ms| [Held { session: session.clone(), since_ms }];
        self.store.register(&held(&there, 1000), LONG).await.unwrap();
        assert_eq!(self.at(&here).await, Some(here.server.clone()));
        assert_eq!(self.of(here.mid).await, [(here.key.clone(), here.server.clone())]);
        // The move of this key was lost.
        self.store.register(&held(&there, proto::log::now_ms() + 1000), LONG).await.unwrap();
        assert_eq!(self.at(&here).await, Some(there.server.clone()));
        assert_eq!(self.of(here.mid).await, [(there.key.clone(), there.server.clone())]);
        self.store.register(&held(&here, 2000), LONG).await.unwrap();
        assert_eq!(self.at(&here).await, Some(there.server.clone()));
        // Of who nobody is, nobody knows since when: who has the key keeps it.
        let (here, there) = (self.session(0, "nobodys", "here"), self.session(0, "nobodys", "there"));
        self.connect(&here).await;
        self.store.register(&held(&there, u64::MAX / 2), LONG).await.unwrap();
        assert_eq!(self.at(&here).await, Some(here.server.clone()));
    }

    async fn the_epoch_stays_while_nothing_is_lost(&self) {
        let epoch = self.store.epoch().await.unwrap();
        assert_ne!(epoch, 0);
        assert_eq!(self.store.epoch().await.unwrap(), epoch);
    }

    async fn many_keys_are_located_in_order(&self) {
        let here = self.session(0, "here", "s1");
        self.connect(&here).await;
        let mut keys: Vec<Key> = (0..2500).map(|n| self.key(&format!("nowhere{n}"))).collect();
        keys[1700] = here.key.clone();
        keys.push(here.key.clone());
        let found = self.store.locate_keys(&keys).await.unwrap();
        let places: Vec<_> = found.iter().enumerate().filter(|(_, server)| server.is_some()).map(|(n, _)| n).collect();
        assert_eq!((found.len(), places), (2501, vec![1700, 2500]));
        assert_eq!(self.store.locate_keys(&[]).await.unwrap(), []);
        assert_eq!(self.store.locate_mids(&[]).await.unwrap(), []);
    }

    /// Waits until the key is nowhere; Redis expires by the second.
    async fn gone(&self, session: &Session) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.at(session).await.is_some() {
            assert!(Instant::now() < deadline, "{:?} did not expire", session.key);
            sleep(Duration::from_millis(50)).await;
        }
    }
}
