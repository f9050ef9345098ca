# What a person needs to see after a failure, in artefacts/cluster/<the run's name>: the logs of everything, each
# object's state, Events, the audit log, and one timeline of what happened and who changed what.

evidence() {
    [ -n "$state" ] && [ -d "$state/log" ] || return 0
    local to
    to="$artefacts/cluster/$(date +%H%M%S)-${state##*-}"
    mkdir -p "$to/pods" && cp "$state"/log/*.log "$to" || return 0
    [ ! -e "$state/audit.log" ] || cp "$state/audit.log" "$to"
    local node
    for node in 1 2; do
        [ ! -d "$state/node$node/logs" ] || cp -r "$state/node$node/logs/." "$to/pods" || true
    done
    if [ -e "$state/kubeconfig" ] && k get --raw /readyz >/dev/null 2>&1; then
        k get all,ingress,pvc,endpointslices,leases,poddisruptionbudgets --all-namespaces -o wide >"$to/objects.txt" 2>&1
        k get crd --no-headers -o custom-columns=:.metadata.name 2>/dev/null | grep -v gateway.networking | while read -r kind; do
            k get "$kind" --all-namespaces -o yaml
        done >"$to/custom.yaml" 2>&1
        k describe nodes >"$to/nodes.txt" 2>&1
        k describe pods --all-namespaces >"$to/pods.txt" 2>&1
        k get events --all-namespaces -o json >"$to/events.json" 2>"$to/events.error" && rm "$to/events.error"
    fi
    timeline "$to" >"$to/timeline.txt"
    say "what was left behind is in $to"
}

# What the pods of a run that went well said: whoever searches the logs of a whole run searches these too.
pod_logs() {
    local to="$artefacts/logs/cluster-${state##*-}" node
    mkdir -p "$to" || return 0
    for node in 1 2; do
        [ ! -d "$state/node$node/logs" ] || cp -r "$state/node$node/logs/." "$to" || true
    done
}

# One line for each Event and for each change that anybody asked for, in the order of time.
timeline() { # FOLDER
    {
        [ ! -e "$1/events.json" ] || jq -r '.items[]
            | [(.eventTime // .lastTimestamp // .metadata.creationTimestamp), "event",
               "\(.involvedObject.kind)/\(.involvedObject.namespace // "")/\(.involvedObject.name)",
               .reason, (.message // "" | gsub("\\s+"; " "))] | @tsv' "$1/events.json"
        [ ! -e "$1/audit.log" ] || jq -rR 'fromjson? | select(.verb | IN("create", "update", "patch", "delete", "deletecollection"))
            | select(.objectRef.resource | IN("leases", "events", "subjectaccessreviews", "tokenreviews") | not)
            | [.requestReceivedTimestamp, .verb,
               "\(.objectRef.resource)\(if .objectRef.subresource then "/" + .objectRef.subresource else "" end)/\(.objectRef.namespace // "")/\(.objectRef.name // "")",
               (.responseStatus.code // 0 | tostring), .user.username] | @tsv' "$1/audit.log"
    } 2>&1 | LC_ALL=C sort
}
