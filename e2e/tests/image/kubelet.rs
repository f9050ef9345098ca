//! The images on a real node: one pod of all three, as the `restricted` profile wants it and on read-only roots.

use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::eventually;
use e2e::image::{Image, Labels};

const POD: &str = include_str!("pod.yaml");
const READY: Duration = Duration::from_secs(180);

#[tokio::test]
async fn they_run_together_on_a_node_under_the_restricted_profile() {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("imcluster.tar");
    Image::Imcluster.pack("imcluster.test/imcluster:0.1.0", &Labels::new(), &ours).await.unwrap();
    let kafka = Image::Kafka.cached("imcluster.test/kafka:1").await.unwrap();
    let redis = Image::Redis.cached("imcluster.test/redis:1").await.unwrap();
    let cluster = Cluster::start().await.unwrap();
    let mut names = Vec::new();
    for archive in [&ours, &kafka, &redis] {
        names.extend(cluster.import_image(archive).await.unwrap());
    }
    let wanted = ["imcluster.test/imcluster:0.1.0", "imcluster.test/kafka:1", "imcluster.test/redis:1"];
    assert_eq!(names, wanted);
    cluster.apply(POD).await.unwrap();

    let exec = async |container: &str, command: &[&str]| {
        let line = ["exec", "all", "--namespace=images", "--container", container, "--"];
        cluster.kubectl(&[&line, command].concat()).await
    };
    let topic =
        ["java", "-Xmx96m", "-XX:-UsePerfData", "-cp", "/opt/kafka/libs/*", "org.apache.kafka.tools.TopicCommand"];
    let create = ["--bootstrap-server=127.0.0.1:9092", "--create", "--if-not-exists", "--topic=goim-push-topic"];
    let command = [&topic[..], &create[..]].concat();
    eventually(READY, "Kafka to make a topic", || exec("kafka", &command)).await.unwrap();
    // Ready once Kafka and Redis have answered it.
    cluster.wait(READY, "pod/all", "condition=Ready", &["--namespace=images"]).await.unwrap();
    assert_eq!(exec("redis", &["redis-cli", "ping"]).await.unwrap().trim(), "PONG");
    assert!(exec("imcluster", &["imcluster", "--version"]).await.unwrap().starts_with("imcluster 0."));
    assert!(exec("imcluster", &["sh", "-c", "true"]).await.is_err(), "there is a shell in our image");
    cluster.end().await.unwrap();
}
