//! The images, taken apart and run as a kubelet runs them under the `restricted` profile: as an ordinary user, on a root
//! that cannot be written. Needs root, for mounts in a namespace of their own.

mod kubelet;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::child;
use e2e::image::{Image, Labels};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const INSTALL: &str = "it is part of every system";

/// Runs `$@` in the image at `$root` as `$user` with nothing but `$env`. What a container runtime mounts is mounted.
const CONTAINER: &str = r#"
set -eu
mount --bind "$root" "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec env -i $env "$(command -v chroot)" --userspec="$user" --groups= "$root" "$@"
"#;

/// An image on disk.
struct Unpacked {
    folder: TempDir,
    config: Value,
}

impl Unpacked {
    async fn new(archive: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("imcluster-image-").tempdir().unwrap();
        let (layout, root) = (folder.path().join("layout"), folder.path().join("root"));
        extract(archive, &layout).await;
        let read = |path: &str| serde_json::from_slice::<Value>(&fs::read(layout.join(path)).unwrap()).unwrap();
        let blob = |about: &Value| about["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest = read(&blob(&read("index.json")["manifests"][0]));
        for layer in manifest["layers"].as_array().unwrap() {
            extract(&layout.join(blob(layer)), &root).await;
        }
        let config = read(&blob(&manifest["config"]))["config"].take();
        fs::remove_dir_all(layout).unwrap();
        Self { folder, config }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Runs a command in it to its end and returns what it printed.
    async fn run(&self, argv: &[&str]) -> anyhow::Result<String> {
        anyhow::ensure!(fs::metadata("/proc/self")?.uid() == 0, "mounts are root's to make: run the test as root");
        for mounted in ["dev", "proc"] {
            fs::create_dir_all(self.root().join(mounted))?;
        }
        let env: Vec<&str> = self.config["Env"].as_array().unwrap().iter().map(|set| set.as_str().unwrap()).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh"]).args(argv);
        command.env("root", self.root()).env("env", env.join(" "));
        command.env("user", self.config["User"].as_str().unwrap());
        child::run(INSTALL, command).await
    }

    /// The same for what the image runs by itself, with these arguments.
    async fn run_entrypoint(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let entrypoint = self.config["Entrypoint"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        self.run(&entrypoint.chain(arguments.iter().copied()).collect::<Vec<_>>()).await
    }
}

async fn extract(tar: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut command = Command::new("tar");
    command.args(["--extract", "--preserve-permissions", "--file"]).arg(tar).arg("--directory").arg(folder);
    child::run(INSTALL, command).await.unwrap();
}

/// Path → mode and hash of everything below a folder.
fn tree(root: &Path) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let hash = if about.is_file() {
                format!("{:x}", Sha256::digest(fs::read(&path).unwrap()))
            } else {
                format!("{:?}", about.file_type())
            };
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), (about.permissions().mode(), hash));
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// Runs the command that packs images and returns what it printed.
async fn image(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image"));
    command.args(arguments);
    child::run(INSTALL, command).await.unwrap()
}

#[tokio::test]
async fn the_dockerfile_copies_what_make_image_packs() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, copied) = (folder.path().join("image.tar"), folder.path().join("copied"));
    image(&["imcluster", "--name", "imcluster:0.1.0", "--out", archive.to_str().unwrap()]).await;
    let dockerfile = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Dockerfile")).unwrap();
    let line =
        dockerfile.lines().find_map(|line| line.split_once("&& target/dist/image ")).expect("it calls the packer");
    let words: Vec<&str> =
        line.1.split_whitespace().map(|word| if word == "/image" { copied.to_str().unwrap() } else { word }).collect();
    image(&words).await;
    let (packed, copied) = (tree(&Unpacked::new(&archive).await.root()), tree(&copied));
    assert!(packed.len() > 10 && packed.contains_key("imcluster"), "{packed:?}");
    assert_eq!(packed, copied);
}

#[tokio::test]
async fn imcluster_runs_alone_in_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    Image::Imcluster.pack("imcluster:0.1.0", &Labels::new(), &archive).await.unwrap();
    let unpacked = Unpacked::new(&archive).await;
    assert!(unpacked.run_entrypoint(&["--version"]).await.unwrap().starts_with("imcluster 0."));
    let help = unpacked.run(&["imcluster", "comet", "--help"]).await.unwrap();
    assert!(help.contains("--max-connections"), "{help}");
    assert!(unpacked.run(&["sh", "-c", "true"]).await.is_err(), "there is a shell in the image");
}

#[tokio::test]
async fn kafka_formats_its_storage_without_a_shell() {
    let unpacked = Unpacked::new(&Image::Kafka.cached("imcluster.test/kafka:1").await.unwrap()).await;
    let config = unpacked.root().join("config");
    fs::create_dir(&config).unwrap();
    let properties = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n\
                      listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n\
                      controller.listener.names=CONTROLLER\nlog.dirs=/tmp/data\n";
    fs::write(config.join("server.properties"), properties).unwrap();
    let java = ["-Xmx96m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", "/opt/kafka/libs/*"];
    let format =
        ["kafka.tools.StorageTool", "format", "-t", "aW1jbHVzdGVyLWUyZS0wMQ", "-c", "/config/server.properties"];
    let told = unpacked.run_entrypoint(&[&java[..], &format[..]].concat()).await.unwrap();
    assert!(told.contains("Formatting") && told.contains("/tmp/data"), "{told}");
}

#[tokio::test]
async fn redis_and_its_client_run_in_their_image() {
    let unpacked = Unpacked::new(&Image::Redis.cached("imcluster.test/redis:1").await.unwrap()).await;
    assert!(unpacked.run_entrypoint(&["--version"]).await.unwrap().starts_with("Redis server v="));
    assert!(unpacked.run(&["redis-cli", "--version"]).await.unwrap().starts_with("redis-cli "));
}

#[tokio::test]
async fn a_cached_image_is_packed_once_a_name() {
    let first = Image::Redis.cached("imcluster.test/redis:1").await.unwrap();
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    let second = Image::Redis.cached("imcluster.test/redis:1").await.unwrap();
    assert_eq!((&second, fs::metadata(&second).unwrap().modified().unwrap()), (&first, written));
    assert_ne!(Image::Redis.cached("imcluster.test/redis:2").await.unwrap(), first);
}

#[tokio::test]
async fn two_versions_of_one_program_are_two_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for more in [
        ["--name", "imcluster:0.1.0"].as_slice(),
        &["--name", "imcluster:0.1.1"],
        &["--name", "imcluster:0.1.1", "--label", "build=7"],
    ] {
        let archive = folder.path().join(format!("{}.tar", told.len()));
        let arguments = [&["imcluster", "--out", archive.to_str().unwrap()], more].concat();
        told.push(image(&arguments).await.split_whitespace().nth(1).unwrap().to_owned());
    }
    assert!(told.iter().all(|digest| digest.starts_with("sha256:")), "{told:?}");
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 3, "{told:?}");
}
