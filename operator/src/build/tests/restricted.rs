//! Every pod passes the `restricted` profile (Kubernetes, Pod Security Standards) and cannot write its root.

use serde_json::json;

use super::*;

/// What of a pod the profile refuses.
fn offences(template: &Value) -> Vec<String> {
    let spec = &template["spec"];
    let mut found = Vec::new();
    let mut expect = |holds: bool, what: String| found.extend((!holds).then_some(what));
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        expect(spec[shared].is_null() || spec[shared] == false, shared.to_owned());
    }
    let known =
        ["configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi", "ephemeral"];
    for volume in spec["volumes"].as_array().unwrap() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        expect(kinds.into_iter().all(|kind| known.contains(&kind.as_str())), format!("volume {volume}"));
    }
    let of_pod = &spec["securityContext"];
    let all = [&spec["initContainers"], &spec["containers"]].into_iter().filter_map(Value::as_array).flatten();
    for container in all {
        let (name, security) = (&container["name"], &container["securityContext"]);
        let or_pods = |field: &str| if security[field].is_null() { &of_pod[field] } else { &security[field] };
        expect(security["allowPrivilegeEscalation"] == false, format!("{name} may escalate"));
        expect(security["privileged"].is_null(), format!("{name} is privileged"));
        expect(security["capabilities"] == json!({"drop": ["ALL"]}), format!("{name} keeps capabilities"));
        expect(*or_pods("runAsNonRoot") == true, format!("{name} may be root"));
        expect(or_pods("runAsUser").as_i64().is_some_and(|user| user > 0), format!("{name} has no number for a user"));
        expect(or_pods("seccompProfile")["type"] == "RuntimeDefault", format!("{name} has no seccomp profile"));
        let ports = container["ports"].as_array().into_iter().flatten();
        expect(ports.into_iter().all(|port| port["hostPort"].is_null()), format!("{name} takes a port of the node"));
    }
    found
}

/// What users add is theirs to answer for.
fn is_ours(container: &Value) -> bool {
    runtime::pod::Component::ALL.iter().any(|component| container["name"] == component.name())
}

#[test]
fn every_pod_passes_the_restricted_profile() {
    for (spec, cluster) in every() {
        let all = templates(&build(&cluster, &facts()));
        assert!(all.len() >= 3);
        for (name, mut template) in all {
            let containers = template["spec"]["containers"].as_array_mut().unwrap();
            containers.retain(is_ours);
            assert_eq!(containers.len(), 1, "{spec}: {name}");
            assert_eq!(offences(&template), Vec::<String>::new(), "{spec}: {name}");
        }
    }
}

#[test]
fn the_check_sees_what_is_wrong() {
    let (_, good) = templates(&build(&cluster("dev"), &facts())).remove(0);
    for (path, wrong) in [
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"])),
        ("/spec/containers/0/securityContext/runAsNonRoot", json!(false)),
        ("/spec/containers/0/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/spec/securityContext/runAsUser", json!(0)),
        ("/spec/volumes/0", json!({"name": "x", "hostPath": {"path": "/"}})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = wrong;
        assert_ne!(offences(&bad), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn our_containers_cannot_write_their_root_and_only_logic_and_job_have_a_token() {
    for (spec, cluster) in every() {
        for (name, template) in templates(&build(&cluster, &facts())) {
            let containers = template["spec"]["containers"].as_array().unwrap();
            for container in containers.iter().filter(|container| is_ours(container)) {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{spec}: {name}");
            }
            let component = template["metadata"]["labels"]["app.kubernetes.io/component"].clone();
            let asks = component == "logic" || component == "job";
            assert_eq!(template["spec"]["automountServiceAccountToken"], asks, "{spec}: {name}");
        }
    }
}
