use proto::Mid;

use super::*;
use crate::store::Session;
use crate::store::memory::MemoryStore;

const TTL: Duration = Duration::from_secs(1800);

/// Server, incarnation, rooms.
type Renewal<'a> = (&'a str, u64, &'a [(&'a str, i32)]);

struct Running {
    store: Arc<MemoryStore>,
    online: Online,
    shutdown: Shutdown,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl Running {
    fn start() -> Self {
        let running =
            Self { store: Arc::new(MemoryStore::new()), online: Online::default(), shutdown: Shutdown::new() };
        let (online, shutdown) = (running.online.clone(), running.shutdown.clone());
        tokio::spawn(follow(online, running.store.clone(), Intervals::default(), shutdown));
        running
    }

    async fn renew(&self, server: &str, incarnation: u64, rooms: &[(&str, i32)]) {
        let info = CometInfo { incarnation, conn_count: 5, ip_count: 2, ..CometInfo::default() };
        self.say(server, rooms, (incarnation != 0).then_some(info)).await;
    }

    async fn say(&self, server: &str, rooms: &[(&str, i32)], info: Option<CometInfo>) {
        let rooms = rooms.iter().map(|(room, count)| ((*room).into(), *count)).collect();
        self.store.renew_online(&server.into(), &rooms, info.as_ref(), TTL).await.unwrap();
    }

    /// Time passes in steps of a second, `renewals` being said each third.
    async fn pass(&self, seconds: u64, renewals: &[Renewal<'_>]) {
        for second in 0..seconds {
            if second % 3 == 0 {
                for (server, incarnation, rooms) in renewals {
                    self.renew(server, *incarnation, rooms).await;
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn connect(&self, key: &str, server: &str, incarnation: u64) {
        let session = Session { mid: Mid(1), key: key.into(), server: server.into(), incarnation };
        self.store.connect(&session, TTL).await.unwrap();
    }

    async fn is_there(&self, key: &str) -> bool {
        self.store.locate_keys(&[key.into()]).await.unwrap()[0].is_some()
    }

    fn ids(&self) -> Vec<String> {
        self.online.comets().iter().map(|(server, _)| server.to_string()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn counts_are_summed_over_all_servers_and_kept_per_server() {
    let running = Running::start();
    running.pass(7, &[("b", 1, &[("test://1", 2)]), ("a", 2, &[("test://1", 3), ("live://1000", 1)])]).await;
    assert_eq!(running.online.room_count("test://1"), 5);
    assert_eq!(running.online.room_count("nowhere"), 0);
    assert_eq!(running.online.rooms().len(), 2);
    assert_eq!(running.online.server_rooms("b").unwrap()["test://1"], 2);
    assert_eq!(running.online.totals(), (4, 10));
    assert_eq!(running.ids(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_offline_comet_is_listed_but_not_counted() {
    let running = Running::start();
    let info = CometInfo { incarnation: 1, offline: true, conn_count: 9, ip_count: 9, ..CometInfo::default() };
    running.say("off", &[("test://1", 9)], Some(info)).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(running.ids(), ["off"]);
    assert_eq!(running.online.totals(), (0, 0));
    assert_eq!(running.online.room_count("test://1"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_was_killed_stops_counting_within_twenty_seconds_and_its_sessions_go() {
    let running = Running::start();
    running.connect("dead", "a", 1).await;
    running.connect("alive", "b", 1).await;
    running.pass(10, &[("a", 1, &[("test://1", 2)]), ("b", 1, &[("test://1", 3)])]).await;
    assert_eq!(running.online.room_count("test://1"), 5);
    running.pass(19, &[("b", 1, &[("test://1", 3)])]).await;
    assert_eq!(running.online.room_count("test://1"), 3);
    assert_eq!(running.ids(), ["b"]);
    running.pass(30, &[("b", 1, &[("test://1", 3)])]).await;
    assert!(!running.is_there("dead").await);
    assert!(running.is_there("alive").await);
    assert_eq!(running.online.purged.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_comet_that_came_back_loses_only_the_sessions_it_did_not_bring() {
    let running = Running::start();
    running.connect("lost", "a", 1).await;
    running.connect("back", "a", 1).await;
    running.pass(6, &[("a", 1, &[])]).await;
    running.connect("back", "a", 2).await;
    running.pass(20, &[("a", 2, &[("test://1", 1)])]).await;
    assert!(!running.is_there("lost").await);
    assert!(running.is_there("back").await);
    assert_eq!(running.online.room_count("test://1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_go_comet_counts_for_three_of_its_own_intervals() {
    let running = Running::start();
    running.renew("go", 0, &[("test://1", 4)]).await;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(running.online.room_count("test://1"), 4);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(running.online.room_count("test://1"), 0);
    assert_eq!(running.store.online(&"go".into()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_away_changes_nothing_and_kills_nobody() {
    let running = Running::start();
    running.connect("kept", "a", 1).await;
    running.pass(6, &[("a", 1, &[("test://1", 2)])]).await;
    running.store.set_away(true);
    running.pass(120, &[]).await;
    assert_eq!(running.online.room_count("test://1"), 2);
    running.store.set_away(false);
    running.pass(5, &[]).await;
    running.pass(20, &[("a", 1, &[("test://1", 2)])]).await;
    assert!(running.is_there("kept").await);
    assert_eq!(running.online.room_count("test://1"), 2);
}
