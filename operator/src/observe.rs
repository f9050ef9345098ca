//! The world as plan needs it: plain data, no client. How it is got is in `observe/`.

pub mod cache;
pub mod live;
pub mod object;
pub mod pod;
pub mod report;

use std::sync::Arc;

use crate::crd::ImCluster;
use crate::validate::Operand;

pub use object::{Key, Seen, Workload};
pub use pod::Pod;
pub use report::Report;

/// One ImCluster and everything around it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What is asked for, and what was last reported.
    pub cluster: Arc<ImCluster>,
    /// What the operator runs by itself.
    pub operand: Operand,
    /// Where the operator runs.
    pub operator_namespace: String,
    /// Every object with our labels in the namespace and this cluster's name.
    pub children: Vec<Seen>,
    /// Objects that have a child's name and are somebody else's, found by asking for them.
    pub foreign: Vec<Key>,
    /// Objects that the API server would not take, and what it said.
    pub refused: Vec<(Key, String)>,
    /// Every pod of this cluster.
    pub pods: Vec<Pod>,
    /// When connections and lag were last reported, in Unix seconds.
    pub counted: Option<i64>,
    /// Optional kinds that the API server has.
    pub kinds: Kinds,
}

/// Which optional kinds the API server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Gateway API.
    pub http_route: bool,
    /// Prometheus operator.
    pub service_monitor: bool,
}

impl Observed {
    /// The object of this kind and name, whoever owns it.
    pub fn child(&self, kind: &str, name: &str) -> Option<&Seen> {
        self.children.iter().find(|child| child.key.kind == kind && child.key.name == name)
    }

    /// The ImCluster's namespace.
    pub fn namespace(&self) -> &str {
        self.cluster.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The ImCluster's name.
    pub fn name(&self) -> &str {
        self.cluster.metadata.name.as_deref().unwrap_or_default()
    }

    /// The ImCluster's UID.
    pub fn uid(&self) -> &str {
        self.cluster.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The same as [`Self::child`], only when it is ours.
    pub fn ours(&self, kind: &str, name: &str) -> Option<&Seen> {
        self.child(kind, name).filter(|child| child.owner.as_deref() == Some(self.uid()))
    }
}
