//! logic's HTTP API against its own document: whatever it is asked, it answers as `/openapi.json` says, and never with a
//! fault of its own.

use std::process::Command;
use std::time::Duration;

use e2e::client::{Client, Dial};
use e2e::program::{Options, Stack};
use e2e::{child, planted, schemathesis, soak};
use sha2::{Digest, Sha256};

/// How many requests are made up for each route in a run of `make test`; a long one makes them up until its time is over.
const EXAMPLES: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_it_is_asked_the_api_answers_as_its_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let token = planted::secret("push-token");
    let hash: String = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&tokens, format!("[[token]]\nname = \"all\"\nsha256 = \"{hash}\"\nroutes = [\"*\"]\n")).unwrap();
    let identity = ["--auth", "trust", "--push-tokens", tokens.to_str().unwrap()].map(str::to_owned).into();
    let stack = Stack::start(Options { identity, ..Options::default() }).await.unwrap();
    // Somebody is there to be counted and pushed to.
    let target = format!("tcp://{}", stack.comet(0).tcp()).parse().unwrap();
    let mut clients = Vec::new();
    for mid in 0..3 {
        let mut client = Client::connect(&target, &Dial::default()).await.unwrap();
        client.auth(format!(r#"{{"mid":{mid},"key":"{mid}","room_id":"a://{mid}","accepts":[1]}}"#)).await.unwrap();
        clients.push(client);
    }

    let enough = match soak::length(Duration::ZERO).as_secs() {
        0 => ["--max-examples".to_owned(), EXAMPLES.to_string()],
        seconds => ["--max-time".to_owned(), seconds.to_string()],
    };
    let mut command = Command::new(schemathesis::program().await.unwrap());
    command.args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/schemathesis.toml")]);
    command.args(["run", &format!("http://{}/openapi.json", stack.http())]);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args(["--seed", &soak::seed().to_string(), "--no-color"]).args(enough);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).current_dir(folder.path());
    child::run("", command).await.unwrap();

    let (_, page) = stack.logic.get("/metrics").await.unwrap();
    assert!(page.contains("imcluster_logic_http_panics_total 0\n"), "a handler panicked");
    for mut client in clients {
        client.heartbeat().await.unwrap();
    }
}
