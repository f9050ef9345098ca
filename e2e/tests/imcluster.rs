//! An ImCluster on a real Kubernetes, as its user has it: the charts installed with helm, the rest by kubectl.
//!
//! Every test has a cluster of its own with the images of this tree; what it does to it is one story.

mod broken;
mod deploys;
mod external;
mod first;
mod fixtures;
mod hands;
mod installed;
mod life;
mod rig;
mod steady;
mod ways;

use external::External;
use rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn twelve_lines_make_a_cluster_that_lives_as_a_kubernetes_user_expects_and_can_be_removed_whole() {
    let rig = Rig::start().await.unwrap();
    ways::story(&rig).await;
    life::story(&rig).await;
    rig.nothing_was_denied();
    installed::story(&rig).await;
    rig.end().await.unwrap();
}

/// On a Kafka and a Redis of somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_lose_no_more_than_their_own_gaps_while_everything_is_replaced_and_then_nothing_is_written()
{
    let rig = Rig::start().await.unwrap();
    let external = External::start(&rig).await.unwrap();
    deploys::story(&rig, &external).await;
    steady::story(&rig, &external).await;
    rig.nothing_was_denied();
    rig.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_and_stalled_are_true_to_their_word_and_many_hands_keep_what_is_theirs() {
    let rig = Rig::start().await.unwrap();
    let external = External::start(&rig).await.unwrap();
    tokio::join!(first::story(&rig, &external), broken::story(&rig, &external));
    hands::story(&rig, &external).await;
    rig.nothing_was_denied();
    rig.end().await.unwrap();
}
