//! A user's pod template: what it may change, and what it may not.

use serde_json::json;

use super::*;

/// comet's pod template under an overlay.
fn comet_with(overlay: Value) -> Value {
    let cluster = changed("dev", |it| it.spec.comet.pod_template = Some(overlay));
    templates(&build(&cluster, &facts())).into_iter().find(|(name, _)| name == "prod-comet").unwrap().1
}

/// Without what stands for the whole template in names.
fn without_hash(mut template: Value) -> Value {
    template["metadata"]["annotations"].as_object_mut().unwrap().remove("imcluster.dev/restart");
    template["spec"]["volumes"][0]["configMap"]["name"].take();
    template
}

#[test]
fn what_the_operator_relies_on_stays() {
    let hostile = json!({
        "metadata": {
            "labels": {"app.kubernetes.io/name": "x", "app.kubernetes.io/component": "logic"},
            "annotations": {"imcluster.dev/restart": "x"},
        },
        "spec": {
            "serviceAccountName": "default",
            "automountServiceAccountToken": true,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": false, "runAsUser": 0, "seccompProfile": {"type": "Unconfined"}},
            "volumes": [{"name": "config", "emptyDir": {}}, {"name": "live", "hostPath": {"path": "/"}}],
            "containers": [{
                "name": "comet",
                "image": "example.com/another",
                "imagePullPolicy": "Always",
                "command": ["sh"],
                "args": ["-c", "true"],
                "ports": [{"name": "tcp", "containerPort": 1}, {"name": "new", "containerPort": 2}],
                "startupProbe": {"exec": {"command": ["true"]}},
                "livenessProbe": {"exec": {"command": ["true"]}},
                "readinessProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
                "securityContext": {"privileged": true, "readOnlyRootFilesystem": false},
                "env": [{"name": "POD_NAME", "value": "x"}],
                "volumeMounts": [{"name": "other", "mountPath": "/etc/imcluster/config"}],
            }],
        },
    });
    assert_eq!(without_hash(comet_with(hostile)), without_hash(comet_with(json!({}))));
}

#[test]
fn the_rest_is_the_users() {
    let template = comet_with(json!({
        "metadata": {"labels": {"team": "im"}, "annotations": {"example.com/note": "hello"}},
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "im", "operator": "Exists"}],
            "priorityClassName": "important",
            "securityContext": {"fsGroup": 7, "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [
                {
                    "name": "comet",
                    "env": [{"name": "RUST_BACKTRACE", "value": "1"}],
                    "resources": {"limits": {"memory": "1Gi"}},
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                },
                {"name": "sidecar", "image": "example.com/sidecar"},
            ],
        },
    }));
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    assert_eq!((&meta["labels"]["team"], &meta["annotations"]["example.com/note"]), (&json!("im"), &json!("hello")));
    assert_eq!(spec["nodeSelector"]["disk"], "fast");
    assert_eq!(spec["tolerations"][0]["key"], "im");
    assert_eq!(spec["priorityClassName"], "important");
    assert_eq!(
        (&spec["securityContext"]["fsGroup"], &spec["securityContext"]["runAsUser"]),
        (&json!(7), &json!(65532))
    );
    assert!(spec["volumes"].as_array().unwrap().contains(&json!({"name": "scratch", "emptyDir": {}})));
    let containers = spec["containers"].as_array().unwrap();
    assert_eq!(containers.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(), ["comet", "sidecar"]);
    assert_eq!(containers[0]["resources"]["limits"]["memory"], "1Gi");
    let names: Vec<_> = containers[0]["env"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["POD_NAME", "POD_UID", "POD_NAMESPACE", "POD_IP", "NODE_NAME", "RUST_BACKTRACE"]);
    let mounts = containers[0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.iter().filter(|it| it["mountPath"] == "/scratch").count(), 1);
}

#[test]
fn a_zones_jobs_run_there_in_a_group_of_their_own_whatever_the_overlay() {
    let cluster = changed("everything", |it| {
        it.spec.job.pod_template = Some(json!({"spec": {
            "nodeSelector": {"disk": "fast", "topology.kubernetes.io/zone": "mars"},
            "containers": [{"name": "first", "image": "example.com/x"}, {"name": "job", "env": [{"name": "ZONE", "value": "mars"}]}],
        }}));
    });
    for zone in ["zone-a", "zone-b"] {
        let name = format!("big-job-{zone}");
        let all = templates(&build(&cluster, &facts()));
        let template = &all.iter().find(|(of, _)| *of == name).unwrap().1;
        assert_eq!(template["spec"]["nodeSelector"], json!({"disk": "fast", "topology.kubernetes.io/zone": zone}));
        let containers = template["spec"]["containers"].as_array().unwrap();
        let job = containers.iter().find(|container| container["name"] == "job").unwrap();
        let env = job["env"].as_array().unwrap();
        let value = |name: &str| {
            let mut of = env.iter().filter(|variable| variable["name"] == name);
            let found = of.next().unwrap()["value"].as_str().unwrap().to_owned();
            assert!(of.next().is_none(), "{name} twice");
            found
        };
        assert_eq!((value("IMCLUSTER_GROUP"), value("ZONE")), (format!("im.big.job.{zone}"), zone.to_owned()));
    }
}
