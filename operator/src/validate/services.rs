//! The three services of a spec, each with its pods and its settings.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::pod::{Component, Topology, Zone};
use serde::Serialize;
use serde_json::Value;
use toml::Table;

use super::{
    Autoscaling, Comet, Exposure, HttpRoute, Ingress, Invalid, Job, ListenerTls, Logic, Rollout, ServiceType, Whole,
    Workload, overlay, settings,
};
use crate::crd;
use crate::crd::{ExposureType, JobMode, PodDisruptionBudget, PodServiceType};

/// How many logics without a word.
const LOGICS: i32 = 2;
/// Room between the end of a drain and the kill.
const MARGIN: i64 = 10;
/// What logic needs to end, as it is by default: 5 s on, 15 s for requests in flight.
const LOGIC_DRAIN: (i64, i64) = (5, 15);
/// What job needs to end, as it is by default.
const JOB_FLUSH: i64 = 10;

/// The parts of a service's spec that all three have.
struct Common<'a> {
    component: Component,
    replicas: i32,
    resources: Option<&'a ResourceRequirements>,
    budget: &'a PodDisruptionBudget,
    template: Option<&'a Value>,
    overrides: Option<&'a Value>,
    decided: Table,
    fixed: Table,
    live: Table,
}

impl Common<'_> {
    /// The field that holds the overrides.
    fn overrides_field(&self) -> String {
        format!("spec.{}.configOverrides", self.component.name())
    }

    fn workload(self, grace: impl FnOnce(&str, &Table) -> Result<i64, Invalid>) -> Result<Workload, Invalid> {
        let field = self.overrides_field();
        let mut live = self.live;
        let fixed = overlay::settings(&field, self.decided, self.fixed, &mut live, self.overrides)?;
        let budget = self.budget.enabled.then_some(IntOrString::Int(self.budget.max_unavailable));
        Ok(Workload {
            component: self.component,
            replicas: self.replicas,
            resources: self.resources.cloned(),
            budget,
            template: overlay::pod_template(&format!("spec.{}.podTemplate", self.component.name()), self.template)?,
            grace_seconds: grace(&field, &fixed)?,
            fixed,
            live,
        })
    }
}

/// Typed settings as a table; what is not set is not in it.
fn table(settings: &impl Serialize) -> Table {
    let value = serde_json::to_value(settings).ok();
    value.as_ref().and_then(Value::as_object).and_then(overlay::table).unwrap_or_default()
}

fn port(field: &str, number: i32) -> Result<u16, Invalid> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Invalid::spec(field, "expected a port, 1 to 65535"))
}

pub(super) fn comet(whole: &Whole<'_>) -> Result<Comet, Invalid> {
    let spec = &whole.spec.comet;
    let tcp_port = port("spec.comet.listeners.tcp.port", spec.listeners.tcp.port)?;
    let websocket_port = port("spec.comet.listeners.websocket.port", spec.listeners.websocket.port)?;
    let tls = spec.listeners.tls.as_ref().map(|tls| {
        Ok(ListenerTls {
            secret: tls.secret_name.clone(),
            tcp_port: port("spec.comet.listeners.tls.tcpPort", tls.tcp_port)?,
            websocket_port: port("spec.comet.listeners.tls.websocketPort", tls.websocket_port)?,
        })
    });
    let tls = tls.transpose()?;
    let mut decided = settings::comet(whole, tcp_port, websocket_port, &spec.drain);
    if let Some(tls) = &tls {
        settings::listener_tls(&mut decided, tls.tcp_port, tls.websocket_port);
    }
    let drain = &spec.drain;
    let grace = i64::from(drain.delay_seconds + drain.max_seconds + drain.flush_seconds) + MARGIN;
    let config = spec.config.clone().unwrap_or_default();
    let common = Common {
        component: Component::Comet,
        replicas: spec.replicas,
        resources: spec.resources.as_ref(),
        budget: &spec.pod_disruption_budget,
        template: spec.pod_template.as_ref(),
        overrides: spec.config_overrides.as_ref(),
        decided,
        fixed: table(&config.fixed),
        live: table(&config.live),
    };
    let zone = |zone: &crd::Zone| {
        (zone.name.clone(), Zone { region: zone.region.clone(), weight: Some(i64::from(zone.weight)) })
    };
    let workload = common.workload(|_, _| Ok(grace))?;
    Ok(Comet {
        max_connections: settings::max_connections(&workload.fixed, &workload.live),
        workload,
        tcp_port,
        websocket_port,
        tls,
        exposure: exposure(&spec.exposure),
        ingress: comet_ingress(whole)?,
        rollout: Rollout {
            min_ready_seconds: spec.rollout.min_ready_seconds,
            pause_seconds: spec.rollout.pause_seconds,
            partition: spec.rollout.partition,
        },
        topology: Topology { updated: Vec::new(), zones: spec.zones.iter().map(zone).collect() },
    })
}

fn exposure(asked: &crd::Exposure) -> Exposure {
    match asked.r#type {
        ExposureType::ClusterIP => Exposure::Shared(ServiceType::ClusterIp),
        ExposureType::LoadBalancer => Exposure::Shared(ServiceType::LoadBalancer),
        ExposureType::NodePort => Exposure::Shared(ServiceType::NodePort),
        ExposureType::PerPod => Exposure::PerPod {
            service: match asked.service_type.unwrap_or_default() {
                PodServiceType::ClusterIP => ServiceType::ClusterIp,
                PodServiceType::LoadBalancer => ServiceType::LoadBalancer,
                PodServiceType::NodePort => ServiceType::NodePort,
            },
            domain: asked.host_domain.clone(),
        },
    }
}

pub(super) fn logic(whole: &Whole<'_>, comet: &Comet) -> Result<Logic, Invalid> {
    let spec = &whole.spec.logic;
    let mut decided = settings::logic(whole);
    settings::nodes(&mut decided, whole, comet);
    let config = spec.config.clone().unwrap_or_default();
    let autoscaling =
        spec.autoscaling.as_ref().map(|asked| Autoscaling { min: asked.min, max: asked.max, cpu: asked.cpu });
    let common = Common {
        component: Component::Logic,
        replicas: spec.replicas.or(autoscaling.map(|asked| asked.min)).unwrap_or(LOGICS),
        resources: spec.resources.as_ref(),
        budget: &spec.pod_disruption_budget,
        template: spec.pod_template.as_ref(),
        overrides: spec.config_overrides.as_ref(),
        decided,
        fixed: table(&config.fixed),
        live: table(&config.live),
    };
    let mut workload = common.workload(|field, file| {
        let delay = settings::seconds_of(field, file, "drainDelay", LOGIC_DRAIN.0)?;
        Ok(delay + settings::seconds_of(field, file, "drainDeadline", LOGIC_DRAIN.1)? + MARGIN)
    })?;
    if !spec.regions.is_empty() && !workload.fixed.contains_key("regions") {
        let provinces = |region: &crd::Region| {
            let names = region.provinces.iter().cloned().map(toml::Value::String).collect();
            (region.name.clone(), toml::Value::Array(names))
        };
        let regions: Table = spec.regions.iter().map(provinces).collect();
        workload.fixed.insert("regions".to_owned(), regions.into());
    }
    let http_route = spec.http_route.as_ref().map(|asked| HttpRoute {
        parents: asked.parent_refs.iter().filter_map(|parent| serde_json::to_value(parent).ok()).collect(),
        hostnames: asked.hostnames.clone(),
    });
    Ok(Logic { workload, autoscaling, ingress: logic_ingress(whole)?, http_route })
}

/// The Ingress for backends, when there is to be one.
fn logic_ingress(whole: &Whole<'_>) -> Result<Option<Ingress>, Invalid> {
    let Some(asked) = whole.spec.logic.ingress.as_ref().filter(|asked| asked.enabled) else {
        return Ok(None);
    };
    let host = asked.host.clone();
    let host =
        host.ok_or_else(|| Invalid::spec("spec.logic.ingress.host", "expected a name such as im.example.com"))?;
    Ok(Some(Ingress {
        class: asked.class_name.clone(),
        host,
        tls_secret: asked.tls.as_ref().map(|tls| tls.secret_name.clone()),
        annotations: asked.annotations.clone(),
    }))
}

/// The Ingress for clients: as logic's where it says nothing else, and there when logic's is.
fn comet_ingress(whole: &Whole<'_>) -> Result<Option<Ingress>, Invalid> {
    let like = logic_ingress(whole)?;
    let asked = whole.spec.comet.ingress.clone().unwrap_or_default();
    if !asked.enabled.unwrap_or(like.is_some()) {
        return Ok(None);
    }
    let written = whole.spec.logic.ingress.as_ref().and_then(|ingress| ingress.host.clone());
    let host = asked.host.or(written).ok_or_else(|| {
        Invalid::spec("spec.comet.ingress.host", "expected a name such as im.example.com, as logic has no Ingress")
    })?;
    let same_host = like.as_ref().filter(|like| like.host == host);
    Ok(Some(Ingress {
        class: asked.class_name.or_else(|| like.as_ref().and_then(|like| like.class.clone())),
        tls_secret: match asked.tls {
            Some(tls) => Some(tls.secret_name),
            None => same_host.and_then(|like| like.tls_secret.clone()),
        },
        annotations: match asked.annotations {
            annotations if annotations.is_empty() => like.map(|like| like.annotations).unwrap_or_default(),
            annotations => annotations,
        },
        host,
    }))
}

pub(super) fn job(whole: &Whole<'_>) -> Result<Job, Invalid> {
    let spec = &whole.spec.job;
    let zones: Vec<String> = match spec.mode {
        JobMode::Global => Vec::new(),
        JobMode::PerZone => whole.spec.comet.zones.iter().map(|zone| zone.name.clone()).collect(),
    };
    if spec.mode == JobMode::PerZone {
        if zones.is_empty() {
            return Err(Invalid::spec("spec.comet.zones", "expected the zones, as spec.job.mode is PerZone"));
        }
        if let Some(zone) = zones.iter().find(|zone| !fits(zone, &whole.name)) {
            let why = format!(
                "`{zone}` names a Deployment with spec.job.mode PerZone: expected lower-case letters, digits and -, and no more than 63 characters with `{}-job-` before it",
                whole.name
            );
            return Err(Invalid::spec("spec.comet.zones", why));
        }
    }
    let config = spec.config.clone().unwrap_or_default();
    let common = Common {
        component: Component::Job,
        replicas: spec.replicas,
        resources: spec.resources.as_ref(),
        budget: &spec.pod_disruption_budget,
        template: spec.pod_template.as_ref(),
        overrides: spec.config_overrides.as_ref(),
        decided: settings::job(whole, !zones.is_empty()),
        fixed: table(&config.fixed),
        live: table(&config.live),
    };
    let workload =
        common.workload(|field, file| Ok((settings::seconds_of(field, file, "flush", JOB_FLUSH)? + MARGIN).max(30)))?;
    Ok(Job { workload, group: whole.group.clone(), zones })
}

/// Whether a zone's name can be the end of a Deployment's.
fn fits(zone: &str, cluster: &str) -> bool {
    let is_label = zone.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_label && cluster.len() + "-job-".len() + zone.len() <= 63
}
