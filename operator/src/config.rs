//! The operator's settings.

use std::time::Duration;

use runtime::config::{ConfigError, FileKey, FileKeys};

/// Watching this means: every namespace.
pub const EVERYWHERE: &str = "*";

/// Everything the operator can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The image of comet, logic and job, without a tag: the tag is an ImCluster's version.
    #[arg(long, value_name = "REPOSITORY", env = "IMCLUSTER_OPERAND_IMAGE", default_value = "imcluster/imcluster")]
    pub operand_image: String,
    /// The namespaces whose ImClusters are kept, several comma-separated, or `*` for all. Unset: the operator's own.
    #[arg(long, value_name = "NAMESPACES", env = "IMCLUSTER_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// How often an ImCluster is looked at when nothing happens.
    #[arg(
        long,
        value_name = "DURATION",
        env = "IMCLUSTER_RESYNC",
        default_value = "5m",
        value_parser = runtime::duration::parse
    )]
    pub resync: Duration,
    /// The Lease in the operator's namespace that one operator holds at a time.
    #[arg(long, value_name = "NAME", env = "IMCLUSTER_LEASE_NAME", default_value = "imcluster-operator")]
    pub lease_name: String,
    /// How many ImClusters are looked at at a time.
    #[arg(
        long,
        value_name = "N",
        env = "IMCLUSTER_CONCURRENCY",
        default_value = "16",
        value_parser = clap::value_parser!(u16).range(1..=16)
    )]
    pub concurrency: u16,
    /// A comet's pod whose node has not been ready for this long is deleted without waiting for the node, so that it
    /// can start elsewhere. Only where every namespace is watched: nodes are not anybody's namespace.
    #[arg(
        long,
        value_name = "DURATION",
        env = "IMCLUSTER_NODE_LOST_AFTER",
        default_value = "5m",
        value_parser = runtime::duration::parse
    )]
    pub node_lost_after: Duration,
    /// The operator's own namespace.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// What this operator is called in the Lease and in Events.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "imcluster-operator")]
    pub identity: String,
}

impl FileKeys for Config {
    const KEYS: &'static [(&'static str, FileKey)] = &[];

    fn check(&self) -> Result<(), ConfigError> {
        if self.watch_namespaces.len() > 1 && self.everywhere() {
            return Err(ConfigError::Invalid("--watch-namespaces: `*` stands alone, expected it or a list".into()));
        }
        if self.resync < Duration::from_secs(1) {
            return Err(ConfigError::Invalid("--resync: expected 1s or more".into()));
        }
        Ok(())
    }
}

impl Config {
    /// Whether every namespace is watched.
    pub fn everywhere(&self) -> bool {
        self.watch_namespaces.iter().any(|namespace| namespace == EVERYWHERE)
    }

    /// What to watch: one set of watches each, `None` for the whole cluster. `own` is the operator's namespace.
    pub fn scopes(&self, own: &str) -> Vec<Option<String>> {
        let mut named: Vec<String> = self.watch_namespaces.iter().filter(|name| !name.is_empty()).cloned().collect();
        named.sort();
        named.dedup();
        match named.as_slice() {
            [] => vec![Some(own.to_owned())],
            _ if self.everywhere() => vec![None],
            _ => named.into_iter().map(Some).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Config {
        let named = std::iter::once("operator".into()).chain(args.iter().map(Into::into)).skip(1);
        runtime::config::load::<Config>("operator", "", named, &|_| None).map(|loaded| loaded.service).unwrap()
    }

    #[test]
    fn unset_namespaces_mean_the_operators_own_and_a_star_means_all() {
        assert_eq!(config(&[]).scopes("ops"), [Some("ops".to_owned())]);
        assert_eq!(config(&["--watch-namespaces=b,a,b"]).scopes("ops"), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(config(&["--watch-namespaces=*"]).scopes("ops"), [None]);
    }

    #[test]
    fn a_star_beside_a_name_is_refused() {
        let args = ["--watch-namespaces=*,a".into()];
        let error = runtime::config::load::<Config>("operator", "", args, &|_| None).unwrap_err();
        assert!(error.to_string().contains("stands alone"), "{error}");
    }
}
