//! Every route there is, and where a path leads.

use http::Method;

/// One route of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Push to connections.
    PushKeys,
    /// Push to members.
    PushMids,
    /// Push to a room.
    PushRoom,
    /// Push to everybody.
    PushAll,
    /// The fullest rooms.
    OnlineTop,
    /// Counts of named rooms.
    OnlineRoom,
    /// Counts of the cluster.
    OnlineTotal,
    /// Counts of each comet. Ours.
    OnlineServers,
    /// Where a client should connect.
    NodesWeighted,
    /// Every usable comet.
    NodesInstances,
    /// This API's description. Ours.
    OpenApi,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// To this route.
    Route(Route),
    /// To the same path with or without its last slash.
    Redirect(String),
    /// Nowhere in the API.
    Nothing,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PushKeys,
        Self::PushMids,
        Self::PushRoom,
        Self::PushAll,
        Self::OnlineTop,
        Self::OnlineRoom,
        Self::OnlineTotal,
        Self::OnlineServers,
        Self::NodesWeighted,
        Self::NodesInstances,
        Self::OpenApi,
    ];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::PushKeys => "/goim/push/keys",
            Self::PushMids => "/goim/push/mids",
            Self::PushRoom => "/goim/push/room",
            Self::PushAll => "/goim/push/all",
            Self::OnlineTop => "/goim/online/top",
            Self::OnlineRoom => "/goim/online/room",
            Self::OnlineTotal => "/goim/online/total",
            Self::OnlineServers => "/goim/online/servers",
            Self::NodesWeighted => "/goim/nodes/weighted",
            Self::NodesInstances => "/goim/nodes/instances",
            Self::OpenApi => "/openapi.json",
        }
    }

    /// What tokens and metrics call it: its path without `/goim/`.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.strip_prefix("/goim/").unwrap_or(&path[1..])
    }

    /// Whether it pushes, and so needs a token.
    pub fn pushes(self) -> bool {
        matches!(self, Self::PushKeys | Self::PushMids | Self::PushRoom | Self::PushAll)
    }

    /// Its only method.
    pub fn method(self) -> Method {
        if self.pushes() { Method::POST } else { Method::GET }
    }

    /// Finds the route of a request.
    pub fn find(method: &Method, path: &str) -> Found {
        let at = |path: &str| Self::ALL.into_iter().find(|route| route.path() == path && route.method() == *method);
        if let Some(route) = at(path) {
            return Found::Route(route);
        }
        match path.strip_suffix('/').and_then(at) {
            Some(route) => Found::Redirect(route.path().to_owned()),
            None => Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_route_by_its_method_only() {
        assert_eq!(Route::find(&Method::POST, "/goim/push/all"), Found::Route(Route::PushAll));
        assert_eq!(Route::find(&Method::GET, "/goim/push/all"), Found::Nothing);
        assert_eq!(Route::find(&Method::HEAD, "/goim/online/total"), Found::Nothing);
        assert_eq!(Route::find(&Method::GET, "/goim/online/total/"), Found::Redirect("/goim/online/total".to_owned()));
        assert_eq!(Route::find(&Method::GET, "/goim/online/total//"), Found::Nothing);
        assert_eq!(Route::find(&Method::GET, "/goim"), Found::Nothing);
    }

    #[test]
    fn a_route_is_named_by_its_path() {
        assert_eq!(Route::PushRoom.name(), "push/room");
        assert_eq!(Route::OpenApi.name(), "openapi.json");
    }
}
