//! Signs off the sessions that logic has noted for this comet and that nobody here holds: made for a client that was
//! refused or gone before the answer came, or noted again after its end had been told.
//!
//! What logic did not answer may have been carried out all the same, and a logic that stood still carries it out when it
//! goes on. So all that is noted is looked through soon after such a call, and now and then anyhow.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::{Key, Mid};
use tokio::time::sleep;

use crate::logic::LogicError;
use crate::session::{self, GOIM_TTL};
use crate::shard::{Command, Shard};
use crate::shared::Shared;

/// How long a call that was not answered is given to be carried out.
const SETTLED: Duration = Duration::from_secs(10);
/// How often all is looked through anyhow.
const ANYHOW: Duration = Duration::from_secs(GOIM_TTL.as_secs() / 3);
/// The rest between two answers of logic: at most some 20 000 sessions a second.
const REST: Duration = Duration::from_millis(25);
/// Time to the next try after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Looks through what is noted whenever it is in doubt, for ever.
pub async fn follow(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.doubt.notified() => sleep(SETTLED).await,
            () = sleep(ANYHOW) => {}
        }
        sweep(&shared).await;
    }
}

async fn sweep(shared: &Shared) {
    let mut cursor = String::new();
    loop {
        match shared.logic.noted(&cursor).await {
            Ok(noted) => {
                let mut homes = vec![Vec::new(); shared.shards.len()];
                for session in noted.sessions {
                    homes[shared.home(&session.1)].push(session);
                }
                for (shard, sessions) in shared.shards.iter().zip(homes) {
                    shard.send(Command::Noted(sessions));
                }
                cursor = noted.cursor;
                if cursor.is_empty() {
                    return;
                }
                sleep(REST).await;
            }
            Err(LogicError::Unavailable(_)) => {
                shared.metrics.logic_error("noted");
                sleep(RETRY).await;
            }
            Err(error) => return tracing::debug!(%error, "logic does not say which sessions it has noted"),
        }
    }
}

/// Ends those of these sessions that nobody here holds and whose end is not being told already. A client that is being let
/// in is not here yet: its session is noted once more before it is told that it is in, see [`session::adopt`].
pub fn sign_off(shard: &Rc<Shard>, noted: Vec<(Mid, Key)>) {
    for (mid, key) in noted {
        if shard.bucket.get(&key).is_none() && !shard.has_turn(&key) {
            shard.shared.metrics.strays.inc();
            tokio::task::spawn_local(session::depart(shard.clone(), mid, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use bytes::Bytes;
    use tokio::task::LocalSet;

    use super::*;
    use crate::logic::memory::{MemoryLogic, Said};
    use crate::logic::{Held, Logic};
    use crate::testing;

    const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn held(key: &str) -> Held {
        Held { mid: Mid(1), key: key.into(), connected_ms: 5 }
    }

    /// Runs this beside a comet with the connection `here`, whose logic has it noted, and one that sweeps it.
    async fn beside<F: Future<Output = ()>>(test: impl FnOnce(Arc<MemoryLogic>, Rc<Shard>) -> F) {
        let alone = async {
            let logic = Arc::new(MemoryLogic::default());
            let (shard, inbox) = testing::shard_and_inbox(logic.clone());
            let _place = shard.register(testing::channel("here"));
            logic.heartbeat(held("here")).await.unwrap();
            tokio::task::spawn_local(shard.clone().run(inbox));
            tokio::task::spawn_local(follow(shard.shared.clone()));
            test(logic, shard).await;
        };
        LocalSet::new().run_until(alone).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_connect_was_not_answered_is_ended_however_late_logic_makes_it() {
        beside(|logic, shard| async move {
            logic.set_mute(true);
            for number in 0..7 {
                let token = Bytes::from(format!(r#"{{"mid":1,"key":"refused {number}"}}"#));
                let error = logic.connect("", token, NOBODY).await.unwrap_err();
                shard.shared.logic_failed("connect", &error);
            }
            assert_eq!(logic.sessions().len(), 8);
            logic.set_mute(false);
            logic.set_down(true);
            sleep(Duration::from_secs(600)).await;
            logic.set_down(false);
            sleep(SETTLED * 2).await;
            assert_eq!(logic.sessions(), ["here".into()]);
            assert_eq!(shard.shared.metrics.strays.get(), 7);
            // Made by a logic that stood still meanwhile.
            logic.heartbeat(held("very late")).await.unwrap();
            sleep(ANYHOW + SETTLED).await;
            assert_eq!(logic.sessions(), ["here".into()]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn whose_end_is_being_told_is_left_alone_and_found_the_next_time() {
        beside(|logic, shard| async move {
            logic.heartbeat(held("leaving")).await.unwrap();
            let turn = shard.turn(&"leaving".into());
            let mine = turn.lock().await;
            shard.shared.doubt.notify_one();
            sleep(SETTLED * 2).await;
            assert_eq!(shard.shared.metrics.strays.get(), 0);
            drop(mine);
            drop(turn);
            let asked = || logic.said().into_iter().filter(|said| matches!(said, Said::Noted { .. })).count();
            assert_eq!(asked(), 1);
            sleep(ANYHOW).await;
            assert_eq!((asked(), shard.shared.metrics.strays.get()), (2, 1));
        })
        .await;
    }
}
