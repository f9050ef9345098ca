//! Packs a container image without a container engine: `image imcluster --name imcluster:0.1.0 --out imcluster.tar`.

use std::path::PathBuf;

use clap::Parser;
use e2e::image::{Image, Labels};

/// Packs an image as an OCI archive, or lays its files out in a folder.
#[derive(Parser)]
#[command(group = clap::ArgGroup::new("to").required(true))]
struct Arguments {
    /// Which image.
    image: Image,
    /// What it is called: `[REGISTRY/]REPOSITORY[:TAG]`.
    #[arg(long, required_unless_present = "root")]
    name: Option<String>,
    /// A label, as `KEY=VALUE`: two builds of the same files that differ in one are two images.
    #[arg(long, value_parser = label)]
    label: Vec<(String, String)>,
    /// The archive that is written.
    #[arg(long, group = "to", requires = "name")]
    out: Option<PathBuf>,
    /// A folder for the files instead, as the root of the image.
    #[arg(long, group = "to", conflicts_with_all = ["name", "label"])]
    root: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { image, name, label, out, root } = Arguments::parse();
    if let Some(root) = root {
        return image.lay_out(&root).await;
    }
    if let (Some(name), Some(out)) = (name, out) {
        let digest = image.pack(&name, &Labels::from_iter(label), &out).await?;
        println!("{name}  {digest}");
        println!("load it with one of");
        println!("  ctr --namespace k8s.io images import {}", out.display());
        println!("  docker load --input {}", out.display());
    }
    Ok(())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
