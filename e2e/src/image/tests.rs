//! The bytes of archives, and that the lists agree. That the images run is tested in `e2e/tests/image.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::*;

/// Path → mode, time of change and content of everything in a tar.
fn contents(tar: &[u8]) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let about = (header.mode().unwrap(), header.mtime().unwrap(), content);
        (entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned(), about)
    });
    entries.collect()
}

/// A small image whose greeting was written so many seconds after 1970.
fn small(folder: &Path, greeting: &str, written: u64) -> (Recipe, Files) {
    let recipe = "entrypoint = ['/greet']\nuser = '1:1'\nports = [80]\nenv = {A = 'b'}\nfiles = {}";
    let source = folder.join("greeting");
    fs::write(&source, greeting).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
    fs::File::open(&source).unwrap().set_modified(changed).unwrap();
    let mut files = Files::default();
    files.copy("/etc/greeting", &source, &[]).unwrap();
    (toml::from_str(recipe).unwrap(), files)
}

/// Packs it and returns its digest and its bytes.
fn packed((recipe, files): &(Recipe, Files), name: &str, labels: &[(&str, &str)]) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (name, archive) = (Name::parse(name).unwrap(), folder.path().join("made/image.tar"));
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let digest = archive::write(&archive, &name, &all_labels(recipe, &name, &labels), recipe, files).unwrap();
    assert_eq!(fs::read_dir(archive.parent().unwrap()).unwrap().count(), 1, "something is left behind");
    (digest, fs::read(archive).unwrap())
}

#[test]
fn the_same_files_packed_again_are_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let first = packed(&small(folder.path(), "hello", 1_000_000), "greeter:1", &[]);
    let second = packed(&small(folder.path(), "hello", 2_000_000), "greeter:1", &[]);
    assert_eq!(first, second);
    assert_ne!(first, packed(&small(folder.path(), "hallo", 1_000_000), "greeter:1", &[]));
}

#[test]
fn another_tag_or_label_is_another_image_of_the_same_layer() {
    let folder = tempfile::tempdir().unwrap();
    let image = small(folder.path(), "hello", 1);
    let images =
        [("greeter:1", None), ("greeter:2", None), ("greeter:1", Some(("build", "7")))].map(|(name, label)| {
            let (digest, archive) = packed(&image, name, label.as_slice());
            let layer = manifest(&contents(&archive))["layers"][0]["digest"].as_str().unwrap().to_owned();
            (digest, layer)
        });
    let digests: BTreeSet<&str> = images.iter().map(|(digest, _)| digest.as_str()).collect();
    let layers: BTreeSet<&str> = images.iter().map(|(_, layer)| layer.as_str()).collect();
    assert_eq!((digests.len(), layers.len()), (3, 1));
}

type Contents = BTreeMap<String, (u32, u64, Vec<u8>)>;

/// What a descriptor leads to, which has the hash and the size that it says.
fn follow<'a>(archive: &'a Contents, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let (_, _, bytes) = &archive[&format!("blobs/sha256/{digest}")];
    assert_eq!(format!("{:x}", Sha256::digest(bytes)), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

fn json(archive: &Contents, path: &str) -> Value {
    serde_json::from_slice(&archive[path].2).unwrap()
}

fn manifest(archive: &Contents) -> Value {
    serde_json::from_slice(follow(archive, &json(archive, "index.json")["manifests"][0])).unwrap()
}

#[test]
fn everything_leads_from_the_index_to_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (digest, archive) = packed(&small(folder.path(), "hello", 1), "greeter:1", &[("build", "7")]);
    let archive = contents(&archive);
    assert_eq!(json(&archive, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = json(&archive, "index.json");
    let image = &index["manifests"][0];
    assert_eq!(image["digest"], digest);
    assert_eq!(image["annotations"]["io.containerd.image.name"], "docker.io/library/greeter:1");
    assert_eq!(image["annotations"]["org.opencontainers.image.ref.name"], "1");
    let manifest = manifest(&archive);
    let config: Value = serde_json::from_slice(follow(&archive, &manifest["config"])).unwrap();
    let layer = follow(&archive, &manifest["layers"][0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let wanted = serde_json::json!({
        "User": "1:1", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=b"], "Entrypoint": ["/greet"], "WorkingDir": "/",
        "Labels": {"org.opencontainers.image.version": "1", "build": "7"},
    });
    assert_eq!(config["config"], wanted);
    let files = contents(layer);
    assert_eq!(files["etc"], (0o755, 0, Vec::new()));
    assert_eq!(files["etc/greeting"], (0o644, 0, b"hello".to_vec()));
    // What older Docker reads instead of the index.
    let list = json(&archive, "manifest.json");
    assert_eq!(list[0]["RepoTags"][0], "docker.io/library/greeter:1");
    assert_eq!(serde_json::from_slice::<Value>(&archive[list[0]["Config"].as_str().unwrap()].2).unwrap(), config);
    assert_eq!(archive[list[0]["Layers"][0].as_str().unwrap()].2, layer);
}

#[test]
fn a_folder_comes_with_what_its_links_lead_to_and_without_what_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    fs::create_dir_all(here.join("bin")).unwrap();
    fs::write(&there, "settings").unwrap();
    fs::write(here.join("bin/tool"), "#!").unwrap();
    fs::set_permissions(here.join("bin/tool"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(here.join("src.zip"), "sources").unwrap();
    symlink(&there, here.join("conf")).unwrap();
    symlink("nowhere", here.join("dangling")).unwrap();
    let mut files = Files::default();
    files.copy("/opt/it", &here, &["src.zip".to_owned()]).unwrap();
    let mut tar = Vec::new();
    files.write_tar(&mut tar).unwrap();
    let wanted = [
        ("opt", 0o755, ""),
        ("opt/it", 0o755, ""),
        ("opt/it/bin", 0o755, ""),
        ("opt/it/bin/tool", 0o755, "#!"),
        ("opt/it/conf", 0o644, "settings"),
    ];
    let wanted = wanted.map(|(path, mode, text)| (path.to_owned(), (mode, 0, text.as_bytes().to_vec())));
    assert_eq!(contents(&tar), BTreeMap::from(wanted));
}

#[test]
fn a_name_is_completed_as_the_kubelet_does() {
    for (name, whole) in [
        ("imcluster", "docker.io/library/imcluster:latest"),
        ("imcluster:0.1.0", "docker.io/library/imcluster:0.1.0"),
        ("apache/kafka:4.1.1", "docker.io/apache/kafka:4.1.1"),
        ("docker.io/redis:7", "docker.io/library/redis:7"),
        ("localhost/a", "localhost/a:latest"),
        ("registry.test:5000/a/b:Edge_1", "registry.test:5000/a/b:Edge_1"),
        ("registry.test:5000/a", "registry.test:5000/a:latest"),
    ] {
        assert_eq!(Name::parse(name).unwrap().to_string(), whole);
    }
}

#[test]
fn a_name_that_no_engine_takes_is_refused() {
    for name in ["", ":1", "a:", "A:1", "a//b", "/a", "a b", "a:1@x", "registry.test/A", "a/b:c/d"] {
        let told = Name::parse(name).unwrap_err().to_string();
        assert!(told.contains("[REGISTRY/]REPOSITORY[:TAG]"), "{name}: {told}");
    }
}

#[test]
fn every_image_is_an_ordinary_users() {
    for image in Image::ALL {
        let user = image.recipe().unwrap().user;
        let numbers: Vec<u32> = user.split(':').map(|number| number.parse().unwrap()).collect();
        assert!(numbers.len() == 2 && !numbers.contains(&0), "{image:?} runs as {user}");
    }
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let recipe: Recipe =
        toml::from_str("entrypoint = []\nuser = '1:1'\nfiles = {'/bin/x' = '{no-such-program}'}").unwrap();
    let told = recipe.files(&BTreeMap::new()).await.unwrap_err().to_string();
    assert_eq!(told, "`no-such-program` is not on PATH: install it");
}

#[test]
fn the_ports_of_the_images_are_those_of_pods() {
    use runtime::pod::{
        ADMIN, COMET_GRPC, KAFKA, LOGIC_GRPC, LOGIC_HTTP, REDIS, TCP, TCP_TLS, WEBSOCKET, WEBSOCKET_TLS,
    };
    let ours = vec![TCP, WEBSOCKET, WEBSOCKET_TLS, TCP_TLS, COMET_GRPC, LOGIC_HTTP, LOGIC_GRPC, ADMIN];
    for (image, ports) in [(Image::Imcluster, ours), (Image::Kafka, vec![KAFKA]), (Image::Redis, vec![REDIS])] {
        assert_eq!(image.recipe().unwrap().ports, ports, "{image:?}");
    }
}

/// The last stage of the Dockerfile, without its comments, against the same said by the list.
#[test]
fn the_dockerfile_tells_docker_what_the_list_tells_others() {
    let dockerfile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile")).unwrap();
    let (_, stage) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let told: Vec<&str> = stage.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let recipe = Image::Imcluster.recipe().unwrap();
    let env: Vec<String> = recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ports: Vec<String> = recipe.ports.iter().map(u16::to_string).collect();
    let mut wanted = vec!["scratch".to_owned(), "COPY --from=build /image/ /".to_owned()];
    wanted.push(format!("ENV {}", env.join(" ")));
    wanted.extend(recipe.labels.iter().map(|(key, value)| format!("LABEL {key}={value:?}")));
    wanted.push(format!("USER {}", recipe.user));
    wanted.push(format!("EXPOSE {}", ports.join(" ")));
    wanted.push(format!("ENTRYPOINT {:?}", recipe.entrypoint));
    assert_eq!(told, wanted);
}
