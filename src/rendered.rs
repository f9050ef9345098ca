//! The files that the operator writes, read by the services that they are for.

use std::ffi::OsString;
use std::path::Path;

use e2e::certs::Authority;
use operator::crd::ImCluster;
use operator::validate::{Cluster, Operand, Workload, validate};
use runtime::config::{FileKeys, Loaded, Notice};

/// A spec in `operator/golden/`.
fn spec(name: &str) -> ImCluster {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("operator/golden/{name}.spec.yaml"));
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The cluster of it.
fn cluster(name: &str) -> Cluster {
    checked(&spec(name))
}

fn checked(spec: &ImCluster) -> Cluster {
    let operand = Operand { image: "example.com/imcluster".to_owned(), version: "0.1.0".to_owned() };
    validate(spec, &operand).unwrap()
}

/// A folder with what a kubelet would mount at `/etc/imcluster`.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path()).unwrap();
        let issued = authority.issue("anybody", &["localhost", "chat.imcluster.internal"]).unwrap();
        let secrets = folder.path().join("secrets");
        for (what, key, from) in [
            ("kafka-ca", "ca.crt", &authority.ca()),
            ("redis-ca", "ca.crt", &authority.ca()),
            ("auth-ca", "ca.crt", &authority.ca()),
            ("kafka-certificate", "tls.crt", &issued.cert),
            ("kafka-certificate", "tls.key", &issued.key),
            ("tls", "tls.crt", &issued.cert),
            ("tls", "tls.key", &issued.key),
            ("internal-tls", "tls.crt", &issued.cert),
            ("internal-tls", "tls.key", &issued.key),
            ("internal-tls", "ca.crt", &authority.ca()),
        ] {
            std::fs::create_dir_all(secrets.join(what)).unwrap();
            std::fs::copy(from, secrets.join(what).join(key)).unwrap();
        }
        for login in ["kafka-sasl", "redis-login", "redis-sentinel-login"] {
            std::fs::create_dir_all(secrets.join(login)).unwrap();
            std::fs::write(secrets.join(login).join("username"), "im").unwrap();
            std::fs::write(secrets.join(login).join("password"), "s3cret").unwrap();
        }
        Self(folder)
    }

    /// Starts a service on its file, with these variables, as far as reading its settings goes.
    fn load<C: FileKeys>(&self, workload: &Workload, env: &[(&str, &str)]) -> Loaded<C> {
        let mut file = workload.fixed.clone();
        // What is live may stand in the first file just as well.
        let ours = file.get_mut("imcluster").and_then(toml::Value::as_table_mut).unwrap();
        ours.extend(workload.live.clone());
        let text = toml::to_string(&file).unwrap().replace("/etc/imcluster", self.0.path().to_str().unwrap());
        let path = self.0.path().join("service.toml");
        std::fs::write(&path, text).unwrap();
        let argv: [OsString; 2] = ["--config".into(), path.into()];
        let variable = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        let loaded = runtime::config::load::<C>(workload.component.name(), "", argv, &variable).unwrap();
        let warnings: Vec<_> = loaded.notices.iter().filter(|notice| matches!(notice, Notice::Warn(_))).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        let live = C::live();
        assert_eq!(workload.live.keys().find(|name| !live.contains(name)), None, "the live file takes no other");
        loaded
    }
}

#[test]
fn every_service_takes_every_file_that_the_operator_writes_without_a_warning() {
    let mounted = Mounted::new();
    for spec in ["dev", "external", "everything"] {
        let cluster = cluster(spec);
        mounted.load::<comet::Config>(&cluster.comet.workload, &[]);
        mounted.load::<logic::Config>(&cluster.logic.workload, &[]);
        mounted.load::<job::Config>(&cluster.job.workload, &[]);
    }
}

#[test]
fn every_way_in_which_clients_prove_themselves_is_one_that_logic_takes() {
    use logic::auth::Auth;
    let mounted = Mounted::new();
    std::fs::create_dir_all(mounted.0.path().join("secrets/jwt")).unwrap();
    std::fs::write(mounted.0.path().join("secrets/jwt/secret"), "s".repeat(32)).unwrap();
    std::fs::write(mounted.0.path().join("secrets/jwt/keys"), public_key()).unwrap();
    let load = |auth: serde_json::Value| {
        let mut spec = serde_json::to_value(spec("external")).unwrap();
        spec["spec"]["auth"] = auth;
        let cluster = checked(&serde_json::from_value(spec).unwrap());
        mounted.load::<logic::Config>(&cluster.logic.workload, &[]).service
    };
    let secret = load(serde_json::json!({"jwt": {"secretRef": {"name": "x"}}}));
    assert!(secret.auth == Auth::Jwt && secret.jwt.jwt_secret_file.is_some());
    let keys = load(serde_json::json!({"jwt": {
        "keysSecretRef": {"name": "x"}, "audience": ["a", "b"], "issuer": ["c"], "leewaySeconds": 7,
    }}));
    assert!(keys.jwt.jwt_keys_file.is_some_and(|file| file.ends_with("secrets/jwt/keys")));
    assert_eq!((keys.jwt.jwt_audience, keys.jwt.jwt_issuer), (vec!["a".into(), "b".into()], vec!["c".to_owned()]));
    assert_eq!(keys.jwt.jwt_leeway.as_secs(), 7);
    let url = load(serde_json::json!({"jwt": {
        "jwksUrl": "https://id.example/keys", "jwksRefreshSeconds": 60, "claims": {"mid": "uid", "rooms": "r"},
    }}));
    assert_eq!(
        (url.jwt.jwt_jwks_url.unwrap().as_str(), url.jwt.jwt_jwks_refresh.as_secs()),
        ("https://id.example/keys", 60)
    );
    assert_eq!(
        (url.jwt.jwt_mid_claim.as_str(), url.jwt.jwt_key_claim.as_str(), url.jwt.jwt_rooms_claim.as_str()),
        ("uid", "key", "r")
    );
    let webhook = load(serde_json::json!({"webhook": {
        "url": "https://backend/who", "timeoutSeconds": 1, "cache": 5, "caSecretRef": {"name": "x"},
    }}));
    assert!(webhook.auth_ca_file.is_some_and(|file| file.ends_with("secrets/auth-ca/ca.crt")));
    assert_eq!(webhook.auth, Auth::Webhook);
    let webhook = webhook.auth_webhook;
    assert_eq!((webhook.auth_webhook_timeout.as_secs(), webhook.auth_webhook_cache), (1, 5));
}

#[test]
fn every_service_takes_the_certificate_by_which_the_pods_know_each_other() {
    let mounted = Mounted::new();
    let mut spec = serde_json::to_value(spec("external")).unwrap();
    spec["spec"]["internalTLS"] = serde_json::json!({"secretName": "x"});
    let cluster = checked(&serde_json::from_value(spec).unwrap());
    let comet = mounted.load::<comet::Config>(&cluster.comet.workload, &[]).service.internal_tls;
    let logic = mounted.load::<logic::Config>(&cluster.logic.workload, &[]).service.internal_tls;
    let job = mounted.load::<job::Config>(&cluster.job.workload, &[]).service.internal_tls;
    for tls in [comet, logic, job] {
        assert_eq!(tls.internal_tls_name.to_str(), "chat.imcluster.internal");
        assert!(tls.open().unwrap().is_some());
    }
}

/// As `openssl pkey -pubout` writes an Ed25519 key.
fn public_key() -> &'static str {
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
}

#[test]
fn a_pod_is_given_the_time_that_its_service_takes_to_end() {
    let (mounted, cluster) = (Mounted::new(), cluster("dev"));
    let takes = |grace: i64, time: std::time::Duration| assert_eq!(grace, time.as_secs() as i64 + 10);
    let comet = mounted.load::<comet::Config>(&cluster.comet.workload, &[]).service;
    takes(cluster.comet.workload.grace_seconds, comet.drain_delay + comet.drain_max + comet.flush);
    let logic = mounted.load::<logic::Config>(&cluster.logic.workload, &[]).service;
    takes(cluster.logic.workload.grace_seconds, logic.drain_delay + logic.drain_deadline);
    let job = mounted.load::<job::Config>(&cluster.job.workload, &[]).service;
    assert!(cluster.job.workload.grace_seconds >= job.flush.as_secs() as i64 + 10);
}

#[test]
fn what_the_spec_says_is_what_comet_does() {
    let cluster = cluster("everything");
    let comet =
        Mounted::new().load::<comet::Config>(&cluster.comet.workload, &[("ADDRS", "big-comet-0.im.example.com")]);
    let (process, comet) = (comet.process, comet.service);
    assert_eq!((comet.tcp_bind[0].port, comet.websocket_bind[0].port), (4101, 4102));
    assert!(comet.tls_open);
    assert_eq!((comet.tcp_tls_bind[0].port, comet.ws_tls_bind[0].port), (4104, 4103));
    assert_eq!(comet.logic, "dns:big-logic-headless.im.svc:3119");
    assert_eq!((comet.max_connections, comet.tcp_send_buffer), (50_000, Some(64 * 1024)), "as overridden");
    assert_eq!(comet.addrs, ["big-comet-0.im.example.com"]);
    assert_eq!(process.log, "info,comet=debug");
}

#[test]
fn what_the_spec_says_is_what_logic_does() {
    let mounted = Mounted::new();
    let logic = mounted.load::<logic::Config>(&cluster("everything").logic.workload, &[]).service;
    assert_eq!(logic.node.default_domain, "im.example.com");
    assert_eq!((logic.node.tcp_port, logic.node.ws_port, logic.node.wss_port), (443, 0, 443));
    assert_eq!(logic.node.host_domain, ".im.example.com");
    assert_eq!(logic.node.regions.len(), 2);
    assert!(logic.http.no_page && logic.redis.tls);
    assert_eq!(logic.comets, Some("endpointslices:im/big-comet".parse().unwrap()));
    assert!(!logic.topic.kafka_create_topic && logic.topic.kafka_replication == Some(2));
    assert!(logic.topology.ends_with("topology/topology.toml"));
    assert_eq!(logic.redis.sentinel_master.as_deref(), Some("im"));
    assert_eq!(logic.redis.prefix, "im:big:");
    let logic = mounted.load::<logic::Config>(&cluster("external").logic.workload, &[]).service;
    assert_eq!((logic.kafka.topic.as_str(), logic.redis.prefix.as_str(), logic.redis.db), ("pushes", "", 3));
    assert_eq!(
        logic.kafka.properties().unwrap().iter().find(|(key, _)| key == "security.protocol").unwrap().1,
        "SASL_SSL"
    );
}

#[test]
fn what_the_spec_says_is_what_job_does() {
    let mounted = Mounted::new();
    let job = mounted.load::<job::Config>(&cluster("dev").job.workload, &[]).service;
    assert_eq!((job.group.as_str(), job.kafka.topic.as_str()), ("im.prod.job", "im.prod.push"));
    assert_eq!(job.comets, "endpointslices:im/prod-comet".parse().unwrap());
    assert_eq!(job.kafka.brokers, ["prod-kafka.im.svc:9092"]);
    let zone = [("IMCLUSTER_GROUP", "im.big.job.zone-a"), ("ZONE", "zone-a")];
    let job = mounted.load::<job::Config>(&cluster("everything").job.workload, &zone).service;
    assert_eq!((job.group.as_str(), job.zone.as_deref()), ("im.big.job.zone-a", Some("zone-a")));
    assert_eq!(job.flush.as_secs(), 30);
}
