//! What a real broker does only at bad moments.

use bytes::{BufMut, BytesMut};
use clap::Parser;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SOON: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    kafka: KafkaConfig,
}

/// librdkafka takes an answer of few letters for one that does not fit.
fn topic() -> String {
    "push".repeat(50)
}

/// Stands in for a broker as every client of Kafka 0.8 knows it: answers what brokers and topics there are, and nothing
/// else. A real one says for a moment that there are no brokers when its controller takes all of them for dead.
struct StandInBroker {
    port: u16,
    /// Whether the cluster has this broker.
    is_known: Arc<Mutex<bool>>,
}

impl StandInBroker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, is_known) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(true)));
        let known = is_known.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Self::serve(client, port, known.clone()));
            }
        });
        Self { port, is_known }
    }

    async fn serve(mut client: TcpStream, port: u16, is_known: Arc<Mutex<bool>>) -> std::io::Result<()> {
        loop {
            let mut request = vec![0; client.read_u32().await? as usize];
            client.read_exact(&mut request).await?;
            let answer = Self::metadata(&request[4..8], port, *is_known.lock());
            client.write_all(&answer).await?;
        }
    }

    /// Metadata response, version 0.
    fn metadata(correlation: &[u8], port: u16, is_known: bool) -> BytesMut {
        let text = |to: &mut BytesMut, text: &str| {
            to.put_u16(text.len() as u16);
            to.put_slice(text.as_bytes());
        };
        let mut body = BytesMut::from(correlation);
        body.put_u32(u32::from(is_known));
        if is_known {
            body.put_u32(1);
            text(&mut body, "127.0.0.1");
            body.put_u32(u32::from(port));
        }
        body.put_u32(1);
        body.put_u16(0);
        text(&mut body, &topic());
        body.put_u32(1);
        body.put_u16(if is_known { 0 } else { 5 });
        body.put_u32(0);
        body.put_i32(if is_known { 1 } else { -1 });
        for _ in ["replicas", "in sync"] {
            body.put_u32(1);
            body.put_u32(1);
        }
        let mut answer = BytesMut::new();
        answer.put_u32(body.len() as u32);
        answer.extend(body);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_said_to_have_no_brokers_is_found_again() {
    let broker = StandInBroker::start().await;
    let (address, old) = (format!("127.0.0.1:{}", broker.port), "broker.version.fallback=0.8.2");
    let topic = topic();
    let flags = ["x", "--kafka-brokers", &address, "--kafka-topic", &topic, "--kafka-set", "api.version.request=false"];
    let config = Flags::parse_from(flags.into_iter().chain(["--kafka-set", old])).kafka;
    let process = Process::quiet();
    let _queue = KafkaQueue::start(&config, &TopicConfig::default(), &process).unwrap();
    let report = async |wanted: &str| {
        let wait = async {
            while !process.readiness.report().contains(wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(SOON, wait).await;
        assert!(waited.is_ok(), "not `{wanted}` but {}", process.readiness.report());
    };
    report("kafka: ok").await;
    *broker.is_known.lock() = false;
    report("kafka: down").await;
    *broker.is_known.lock() = true;
    report("kafka: ok").await;
}
