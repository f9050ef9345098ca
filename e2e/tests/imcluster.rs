//! An ImCluster on a real Kubernetes, as its user has it: the charts installed with helm, the rest by kubectl.
//!
//! Both tests have a cluster of their own with the images of this tree, and are made of stories, some side by side: to
//! bring up a cluster takes a minute and a half.

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

/// On a Kafka and a Redis of somebody else's. What needs a calm machine comes first and by itself.
#[tokio::test(flavor = "multi_thread")]
async fn everything_may_be_replaced_broken_and_handled_by_many_and_what_need_not_be_written_is_not() {
    let rig = Rig::start().await.unwrap();
    let external = External::start(&rig).await.unwrap();
    deploys::story(&rig, &external).await;
    tokio::join!(first::story(&rig, &external), broken::story(&rig, &external));
    let ((), crowd) = tokio::join!(hands::story(&rig, &external), steady::begin(&rig, &external));
    steady::watch(&rig, crowd).await;
    rig.nothing_was_denied();
    rig.end().await.unwrap();
}
