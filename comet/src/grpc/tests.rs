use std::time::Duration;

use proto::envelope::Through;

use super::*;
use crate::logic::memory::MemoryLogic;
use crate::shard::Inbox;
use crate::testing;

fn service() -> (Service, Inbox) {
    let (shared, inbox) = testing::shared(Arc::new(MemoryLogic::default()));
    let service = Service::new(shared, Probe::new(1), Claims::default(), CancellationToken::new());
    (service, inbox)
}

fn mark(from: u64, through: u64) -> Marks {
    let marks = vec![Mark { partition: 0, from, through, floor: 0, sent: through }];
    Marks { group: "g".into(), epoch: 1, generation: 1, marks }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_that_all_was_vouched_for_comes_behind_the_word_of_what_was_missed() {
    for round in 0..200 {
        let (service, inbox) = service();
        service.hear_marks(mark(0, 10));
        let shared = service.shared.clone();
        let (waits, started) = std::sync::mpsc::channel();
        let leaving = std::thread::spawn(move || {
            waits.send(()).unwrap();
            while !shared.interest.owners().have_vouched(&Through::from([(0, 25)])) {
                std::hint::spin_loop();
            }
            shared.shards[0].send(Command::Flush(oneshot::channel().0));
        });
        started.recv().unwrap();
        service.hear_marks(mark(20, 30));
        leaving.join().unwrap();
        let mut commands = inbox.into_parts().0;
        let mut is_told = false;
        loop {
            match tokio::time::timeout(Duration::from_secs(10), commands.recv()).await.unwrap().unwrap() {
                Command::Missed(..) => is_told = true,
                Command::Flush(_) => break assert!(is_told, "in round {round}"),
                _ => {}
            }
        }
    }
}
