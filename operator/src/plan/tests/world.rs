//! A world in which plans come true: objects, and controllers as simple as they can be and still be unkind. Only for
//! plans; nothing of it speaks HTTP.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use runtime::pod::{Component, RESTART_ANNOTATION};
use serde_json::{Value, json};

use crate::apply::resource;
use crate::crd::ImCluster;
use crate::events::Note;
use crate::observe::object::MANAGER;
use crate::observe::pod::Trouble;
use crate::observe::report::Dependency;
use crate::observe::{Key, Kinds, Observed, Pod, Report, Seen};
use crate::plan::{Action, Apply, Plan, plan};
use crate::validate::Operand;

/// How long a pod takes to become ready, in seconds.
const START: i64 = 8;
/// How long a comet takes to move its clients away.
const DRAIN: i64 = 20;
/// How often the world turns.
pub const TICK: i64 = 5;
/// A version whose image cannot be pulled.
pub const BAD: &str = "0.1.66";

/// A revision's restart hash, and whether its image can be pulled.
type Template = (String, bool);

#[derive(Clone)]
pub struct World {
    pub cluster: ImCluster,
    pub objects: BTreeMap<Key, DynamicObject>,
    pub pods: Vec<Pod>,
    pub now: Timestamp,
    pub actions: Vec<Action>,
    pub notes: Vec<Note>,
    pub foreign: Vec<Key>,
    /// Writes that changed something.
    pub changes: usize,
    /// The operator dies of its write with this number.
    pub dies_at: Option<usize>,
    /// Clients that a pod took down with it.
    pub lost: i64,
    /// How many of the hundred clients of a comet that has drained are on another.
    pub back: i64,
    /// Objects as they were last seen: most of them never change.
    seen: RefCell<BTreeMap<Key, (DynamicObject, Seen)>>,
    templates: BTreeMap<String, Template>,
    leases: BTreeMap<String, i64>,
    serial: u64,
}

pub fn spec(extra: Value) -> Value {
    let mut spec = json!({
        "version": "0.1.0", "auth": { "trust": {} },
        "kafka": { "external": { "bootstrapServers": ["kafka:9092"] } },
        "redis": { "external": { "mode": "Standalone", "addresses": ["redis:6379"] } },
        "comet": {
            "replicas": 3,
            "drain": { "delaySeconds": 2, "minSeconds": 5, "maxSeconds": 40, "maxRatePerSecond": 100, "flushSeconds": 2 },
            "rollout": { "minReadySeconds": 5, "pauseSeconds": 10, "partition": 0 },
        },
    });
    merge(&mut spec, extra);
    spec
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl World {
    pub fn new(extra: Value) -> Self {
        let cluster = json!({
            "apiVersion": "imcluster.dev/v1alpha1", "kind": "ImCluster",
            "metadata": { "name": "prod", "namespace": "im", "uid": "cr-uid", "generation": 1, "resourceVersion": "1" },
            "spec": spec(extra),
        });
        Self {
            cluster: serde_json::from_value(cluster).unwrap(),
            objects: BTreeMap::new(),
            pods: Vec::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            actions: Vec::new(),
            notes: Vec::new(),
            foreign: Vec::new(),
            changes: 0,
            dies_at: None,
            lost: 0,
            back: 100,
            seen: RefCell::default(),
            templates: BTreeMap::new(),
            leases: BTreeMap::new(),
            serial: 0,
        }
    }

    /// A user's edit.
    pub fn edit(&mut self, extra: Value) {
        let mut whole = serde_json::to_value(&self.cluster.spec).unwrap();
        merge(&mut whole, extra);
        self.cluster.spec = serde_json::from_value(whole).unwrap();
        *self.cluster.metadata.generation.as_mut().unwrap() += 1;
    }

    pub fn observed(&self) -> Observed {
        Observed {
            cluster: Arc::new(self.cluster.clone()),
            operand: Operand { image: "imcluster/imcluster".into(), version: "0.1.0".into() },
            operator_namespace: "ops".into(),
            children: self.objects.iter().map(|(key, object)| self.seen(key, object)).collect(),
            foreign: self.foreign.clone(),
            refused: Vec::new(),
            pods: self.pods.clone(),
            counted: None,
            kinds: Kinds::default(),
        }
    }

    fn seen(&self, key: &Key, object: &DynamicObject) -> Seen {
        let mut known = self.seen.borrow_mut();
        if let Some((_, seen)) = known.get(key).filter(|(before, _)| before == object) {
            return seen.clone();
        }
        let now = seen(object);
        known.insert(key.clone(), (object.clone(), now.clone()));
        now
    }

    pub fn plan(&self) -> Plan {
        plan(&self.observed(), self.now)
    }

    /// Plans, makes it true, and lets some time pass.
    pub fn turn(&mut self) {
        let next = self.plan();
        self.carry_out(next);
        self.live();
        self.check();
    }

    /// What holds at every moment.
    pub fn check(&self) {
        let draining = self.pods.iter().filter(|pod| self.is_draining(pod)).count();
        assert!(draining <= 1, "more than one comet drains");
        assert_eq!(self.lost, 0, "a comet went down with its clients");
    }

    /// What a user would call the end state.
    pub fn shape(&self) -> Vec<String> {
        let objects = self.objects.values().map(|object| {
            let mut data = object.data.clone();
            data.as_object_mut().unwrap().remove("status");
            format!("{} {data}", seen(object).key)
        });
        let pods = self.comets().into_iter().map(|pod| format!("{} {:?} {}", pod.name, pod.restart, pod.is_ready()));
        objects.chain(pods).collect()
    }

    pub fn turns(&mut self, times: usize) {
        (0..times).for_each(|_| self.turn());
    }

    /// Turns until nothing is left to do.
    pub fn settle(&mut self) {
        self.settle_and(|_| {});
    }

    /// The same; `look` is shown the world before each turn.
    pub fn settle_and(&mut self, mut look: impl FnMut(&Self)) {
        for _ in 0..200 {
            look(self);
            self.turn();
            let reported = self.cluster.status.as_ref().and_then(|status| status.observed_generation);
            let is_current = reported == self.cluster.metadata.generation;
            let is_done = self.condition("Progressing") == ("False".into(), "RolloutComplete".into());
            if is_current && is_done && self.condition("Ready").1 != "AddressesSpreading" {
                return;
            }
        }
        panic!("never settles: {:#?}", self.cluster.status);
    }

    /// Writes in the order of the real hands. An operator that dies leaves the rest undone.
    pub fn carry_out(&mut self, next: Plan) {
        for delete in &next.deletes {
            self.objects.retain(|_, object| object.metadata.uid.as_ref() != Some(&delete.uid));
            self.changes += 1;
            if self.has_died() {
                return;
            }
        }
        self.foreign.clear();
        for apply in &next.applies {
            let before = self.changes;
            self.apply(apply);
            if self.changes > before && self.has_died() {
                return;
            }
        }
        if let Some(action) = next.action
            && self.act(action.clone())
        {
            self.actions.push(action);
            self.notes.extend(next.action_notes);
            if self.has_died() {
                return;
            }
        }
        self.notes.extend(next.notes);
        if self.cluster.status.as_ref() != Some(&next.status) {
            self.changes += 1;
            self.cluster.status = Some(next.status);
        }
    }

    fn has_died(&self) -> bool {
        self.dies_at == Some(self.changes)
    }

    fn apply(&mut self, apply: &Apply) {
        self.serial += 1;
        let mut sent = apply.object.clone();
        let Some(there) = self.objects.get(&apply.key) else {
            if let Some(replicas) = apply.first_replicas {
                sent.data["spec"]["replicas"] = json!(replicas);
            }
            sent.metadata.managed_fields = Some(owners(sent.data.pointer("/spec/replicas").is_some(), false));
            sent.metadata.uid = Some(format!("uid-{}", self.serial));
            sent.metadata.generation = Some(1);
            sent.metadata.resource_version = Some(self.serial.to_string());
            self.changes += 1;
            self.objects.insert(apply.key.clone(), sent);
            return;
        };
        if seen(there).owner.as_deref() != Some("cr-uid") {
            self.foreign.push(apply.key.clone());
            return;
        }
        // An operator that is behind asks again and finds what it did not know of.
        assert!(apply.uid.is_none() || apply.uid == there.metadata.uid, "every later body carries the uid");
        if apply.key.kind == "StatefulSet" || apply.key.kind == "Deployment" {
            let was = seen(there).workload.unwrap_or_default();
            let names = sent.data.pointer("/spec/replicas").is_some();
            let others = was.others_own_replicas || apply.release.is_some();
            if !names {
                let stays = others || !was.we_own_replicas;
                sent.data["spec"]["replicas"] = json!(if stays { was.replicas } else { 1 });
            }
            sent.metadata.managed_fields = Some(owners(names, others && !names));
            sent.data["status"] = there.data["status"].clone();
        }
        sent.metadata.uid.clone_from(&there.metadata.uid);
        sent.metadata.generation = there.metadata.generation;
        sent.metadata.resource_version.clone_from(&there.metadata.resource_version);
        let is_same = sent.data == there.data && sent.metadata.annotations == there.metadata.annotations;
        if !is_same {
            self.changes += 1;
            sent.metadata.resource_version = Some(self.serial.to_string());
            if sent.data["spec"] != there.data["spec"] {
                sent.metadata.generation = there.metadata.generation.map(|generation| generation + 1);
            }
        }
        self.objects.insert(apply.key.clone(), sent);
    }

    pub fn set(&mut self) -> &mut DynamicObject {
        self.objects.get_mut(&key("StatefulSet", "prod-comet")).unwrap()
    }

    /// Whether it was done: what it was decided on may be no longer so.
    fn act(&mut self, action: Action) -> bool {
        let now = self.now.as_second();
        self.serial += 1;
        let serial = self.serial.to_string();
        let version = self.set().metadata.resource_version.clone();
        match action {
            Action::DrainLease { pod, uid, n, began, clients } => {
                let Some(pod) = self.pods.iter_mut().find(|found| found.name == pod && found.uid == uid) else {
                    return false;
                };
                (pod.drain, pod.drain_began, pod.drain_clients) = (Some(n), Some(began), Some(clients));
                self.leases.entry(uid).or_insert(now);
            }
            Action::LowerPartition { to, resource_version, .. } => {
                if version != Some(resource_version) {
                    return false;
                }
                let set = self.set();
                set.data["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(to);
                set.metadata.resource_version = Some(serial);
                *set.metadata.generation.as_mut().unwrap() += 1;
            }
            Action::ScaleIn { to, resource_version, .. } | Action::ScaleOut { to, resource_version } => {
                if version != Some(resource_version) {
                    return false;
                }
                let set = self.set();
                set.data["spec"]["replicas"] = json!(to);
                set.metadata.managed_fields = Some(owners(false, true));
                set.metadata.resource_version = Some(serial);
                *set.metadata.generation.as_mut().unwrap() += 1;
            }
            Action::ForceDelete { uid, .. } => self.pods.retain(|pod| pod.uid != uid),
        }
        self.changes += 1;
        true
    }

    fn is_draining(&self, pod: &Pod) -> bool {
        pod.drain.is_some_and(|raised| self.now.as_second() - raised < 60)
    }

    /// Time passes; controllers and kubelets do their part.
    pub fn live(&mut self) {
        self.now = Timestamp::from_second(self.now.as_second() + TICK).unwrap();
        let keys: Vec<Key> = self.objects.keys().cloned().collect();
        for key in keys {
            match key.kind.as_str() {
                "Deployment" => self.deployment(&key),
                "StatefulSet" if key.name == "prod-comet" => self.stateful_set(&key),
                _ => {}
            }
        }
        self.kubelet();
    }

    fn template(&mut self, object: &DynamicObject) -> String {
        let template = &object.data["spec"]["template"];
        let restart = template["metadata"]["annotations"][RESTART_ANNOTATION].as_str().unwrap().to_owned();
        let is_bad = template.to_string().contains(BAD);
        let revision = format!("rev-{restart}");
        self.templates.insert(revision.clone(), (restart, !is_bad));
        revision
    }

    fn create(&mut self, name: String, component: Component, ordinal: Option<i32>, revision: &str) {
        self.serial += 1;
        let restart = self.templates[revision].0.clone();
        self.pods.push(Pod {
            name,
            namespace: "im".into(),
            uid: format!("{:08}-pod", self.serial),
            instance: Some("prod".into()),
            component: Some(component),
            ordinal,
            address: Some("10.0.0.1".into()),
            node: Some("node1".into()),
            revision: Some(revision.to_owned()),
            restart: Some(restart),
            created: self.now,
            ready_since: None,
            dies: None,
            drain: None,
            drain_began: None,
            drain_clients: None,
            config: None,
            config_maps: std::collections::BTreeSet::new(),
            trouble: None,
            warning: None,
            report: None,
            is_node_lost: false,
        });
    }

    fn deployment(&mut self, key: &Key) {
        let object = self.objects[key].clone();
        let revision = self.template(&object);
        let wanted = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        let component = if key.name.ends_with("logic") { Component::Logic } else { Component::Job };
        let of = |pod: &Pod| pod.component == Some(component);
        let is_new = |pod: &Pod| of(pod) && pod.revision.as_ref() == Some(&revision);
        let new = i64::try_from(self.pods.iter().filter(|pod| is_new(pod)).count()).unwrap();
        for _ in new..wanted {
            self.create(format!("{}-{}", key.name, self.serial), component, None, &revision);
        }
        if self.pods.iter().filter(|pod| is_new(pod)).all(|pod| pod.ready_since.is_some()) {
            self.pods.retain(|pod| !of(pod) || is_new(pod));
        }
        let ready = self.pods.iter().filter(|pod| is_new(pod) && pod.is_ready()).count();
        let all = self.pods.iter().filter(|pod| of(pod)).count();
        let object = self.objects.get_mut(key).unwrap();
        object.data["status"] = json!({
            "observedGeneration": object.metadata.generation, "replicas": all, "readyReplicas": ready,
            "availableReplicas": ready, "updatedReplicas": wanted,
        });
    }

    fn stateful_set(&mut self, key: &Key) {
        let object = self.objects[key].clone();
        let update = self.template(&object);
        let number = |path: &str| i32::try_from(object.data.pointer(path).and_then(Value::as_i64).unwrap()).unwrap();
        let replicas = number("/spec/replicas");
        let partition = number("/spec/updateStrategy/rollingUpdate/partition");
        let current = object.data.pointer("/status/currentRevision").and_then(Value::as_str);
        let current = current.map_or(update.clone(), str::to_owned);
        let ordinal = |pod: &Pod| pod.ordinal.filter(|_| pod.component == Some(Component::Comet));
        let leaving: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| ordinal(pod).is_some_and(|ordinal| ordinal >= replicas))
            .map(|pod| pod.uid.clone())
            .collect();
        leaving.iter().for_each(|uid| self.remove(uid));
        for missing in 0..replicas {
            if !self.pods.iter().any(|pod| ordinal(pod) == Some(missing)) {
                let revision = if missing >= partition { &update } else { &current };
                self.create(format!("prod-comet-{missing}"), Component::Comet, Some(missing), revision);
            }
        }
        for target in (partition.max(0)..replicas).rev() {
            let pod = self.pods.iter().find(|pod| ordinal(pod) == Some(target)).unwrap();
            if pod.revision.as_ref() != Some(&update) {
                let uid = pod.uid.clone();
                self.remove(&uid);
                break;
            }
            if !pod.is_ready() {
                break;
            }
        }
        let comets = || self.pods.iter().filter(|pod| ordinal(pod).is_some());
        let ready = comets().filter(|pod| pod.is_ready()).count();
        let updated = comets().filter(|pod| pod.revision.as_ref() == Some(&update)).count();
        let is_complete = updated == usize::try_from(replicas).unwrap() && ready == updated;
        let all = comets().count();
        let object = self.objects.get_mut(key).unwrap();
        object.data["status"] = json!({
            "observedGeneration": object.metadata.generation, "replicas": all, "readyReplicas": ready,
            "availableReplicas": ready, "updatedReplicas": updated,
            "currentRevision": if is_complete { &update } else { &current }, "updateRevision": update,
        });
    }

    fn remove(&mut self, uid: &str) {
        let pod = self.pods.iter().find(|pod| pod.uid == uid).unwrap();
        self.lost += pod.connections();
        self.pods.retain(|pod| pod.uid != uid);
    }

    fn kubelet(&mut self) {
        let now = self.now;
        for pod in &mut self.pods {
            let is_good = self.templates[pod.revision.as_ref().unwrap()].1;
            if !is_good {
                pod.trouble = Some(Trouble::new("ImagePullBackOff", "manifest unknown"));
                continue;
            }
            let is_up = now.as_second() - pod.created.as_second() >= START;
            let is_asked = pod.drain.is_some_and(|raised| now.as_second() - raised < 60);
            if !is_asked {
                self.leases.remove(&pod.uid);
            }
            let since = self.leases.get(&pod.uid).map(|began| now.as_second() - began);
            let is_drained = since.is_some_and(|since| since >= DRAIN);
            if is_up && since.is_none() {
                pod.ready_since.get_or_insert(now);
            } else {
                pod.ready_since = None;
            }
            let up = Dependency { up: true, error: None };
            let dependencies = [("kafka".to_owned(), up.clone()), ("redis".to_owned(), up)];
            let is_comet = pod.component == Some(Component::Comet);
            pod.report = is_up.then(|| Report {
                connections: is_comet.then_some(if is_drained { 0 } else { 100 }),
                draining: is_comet.then_some(since.is_some()),
                drained: is_comet.then_some(is_drained),
                flow: is_comet.then(|| "proven".to_owned()),
                dependencies: if is_comet { BTreeMap::new() } else { dependencies.into() },
                ..Report::default()
            });
        }
        self.come_back();
    }

    /// Clients of a comet that has drained are on one that has not.
    fn come_back(&mut self) {
        let (drained, serving): (Vec<_>, Vec<_>) =
            self.pods.iter_mut().filter_map(|pod| pod.report.as_mut()).partition(|report| report.drained == Some(true));
        if let Some(report) = serving.into_iter().find(|report| report.drained.is_some()) {
            let back = self.back * i64::try_from(drained.len()).unwrap();
            report.connections = report.connections.map(|count| count + back);
        }
    }

    /// Status and reason of a condition.
    pub fn condition(&self, kind: &str) -> (String, String) {
        let status = self.cluster.status.as_ref().unwrap();
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
    }

    pub fn message(&self, kind: &str) -> String {
        let status = self.cluster.status.as_ref().unwrap();
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().message.clone()
    }

    pub fn comets(&self) -> Vec<&Pod> {
        let mut comets: Vec<&Pod> = self.pods.iter().filter(|pod| pod.component == Some(Component::Comet)).collect();
        comets.sort_by_key(|pod| pod.ordinal);
        comets
    }

    /// The partitions that were let through, in order.
    pub fn lowered(&self) -> Vec<i32> {
        let lowered = self.actions.iter().filter_map(|action| match action {
            Action::LowerPartition { to, .. } => Some(*to),
            _ => None,
        });
        lowered.collect()
    }
}

pub fn key(kind: &str, name: &str) -> Key {
    Key { kind: kind.into(), name: name.into() }
}

pub fn seen(object: &DynamicObject) -> Seen {
    let types = object.types.as_ref().unwrap();
    Seen::of(object, &resource(&types.api_version, &types.kind))
}

fn owners(ours: bool, others: bool) -> Vec<ManagedFieldsEntry> {
    let entry = |manager: &str| ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        operation: Some("Apply".to_owned()),
        fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } }))),
        ..ManagedFieldsEntry::default()
    };
    let ours = ours.then(|| entry(MANAGER));
    ours.into_iter().chain(others.then(|| entry("somebody"))).collect()
}
