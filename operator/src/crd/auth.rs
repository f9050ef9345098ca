//! How clients prove who they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::pods::NameRef;

/// How clients prove who they are: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.trust) || has(self.jwt) || has(self.webhook)",
        "message": "auth says nothing: set auth.trust to {} to believe what each client says of itself, or auth.jwt or auth.webhook",
    },
    {
        "rule": "!(has(self.trust) && (has(self.jwt) || has(self.webhook))) && !(has(self.jwt) && has(self.webhook))",
        "message": "auth says more than one thing: leave one of trust, jwt and webhook",
    },
]))]
pub struct Auth {
    /// Clients are whoever they say they are, as in goim. For closed networks, or behind a gateway that checks them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Clients bring a signed JSON Web Token. A change here restarts logic; connected clients stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// A backend is asked who each client is. A change here restarts logic; connected clients stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<AuthWebhook>,
}

/// Clients are believed; there is nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trust {}

/// Which tokens are good, and what their claims are called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.secretRef) || has(self.keysSecretRef) || has(self.jwksUrl)",
        "message": "jwt has no keys: set one of secretRef, keysSecretRef and jwksUrl",
    },
    {
        "rule": "!(has(self.secretRef) && (has(self.keysSecretRef) || has(self.jwksUrl))) && !(has(self.keysSecretRef) && has(self.jwksUrl))",
        "message": "jwt has keys from several places: leave one of secretRef, keysSecretRef and jwksUrl",
    },
    {
        "rule": "has(self.jwksUrl) || !(has(self.caSecretRef) || has(self.jwksRefreshSeconds))",
        "message": "caSecretRef and jwksRefreshSeconds go with jwksUrl: leave them out, or set it",
    },
]))]
pub struct Jwt {
    /// A Secret with the key `secret`, at least 32 bytes: tokens are signed with it (HS256, HS384, HS512). A change of
    /// its content is taken up without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// A Secret with the key `keys`: PEM public keys (RSA, P-256, P-384, Ed25519), or a JSON Web Key Set. A change of its
    /// content is taken up without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_secret_ref: Option<NameRef>,
    /// Where the issuer publishes its JSON Web Key Set; asked now and then, and for a `kid` that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = bounds::WEB))]
    pub jwks_url: Option<String>,
    /// A Secret with the key `ca.crt`: the certificate authorities (PEM) that the server behind `jwksUrl` is checked
    /// against. Unset, the public ones. Read when a logic starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
    /// How often `jwksUrl` is asked, in seconds. Default: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub jwks_refresh_seconds: Option<i32>,
    /// Who tokens must be for: their `aud` names one of these. Unset, a token that has an `aud` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 256), regex(pattern = bounds::NO_COMMA)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audience: Vec<String>,
    /// Who tokens must be by: their `iss` is one of these. Unset, anybody with the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 256), regex(pattern = bounds::NO_COMMA)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub issuer: Vec<String>,
    /// By how many seconds clocks may differ when `exp` and `nbf` are looked at. Default: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300))]
    pub leeway_seconds: Option<i32>,
    /// What claims are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
}

/// What claims are called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// The member: a whole number, or its digits as text. Default: sub.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub mid: Option<String>,
    /// The connection's key; tokens may have it. Default: key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub key: Option<String>,
    /// The list of rooms that may be entered; without it any may. Default: rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub rooms: Option<String>,
    /// How many connections the member may have, in place of `logic.config.midConnections`. Default: connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub connections: Option<String>,
}

/// Whom to ask who a client is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthWebhook {
    /// Where to POST `{"token":"…","cookie":"…","address":"…"}`. 200 with `{"mid":7}` lets a client in, 401 and 403
    /// refuse it, anything else has it try again.
    #[schemars(length(max = 2048), regex(pattern = bounds::WEB))]
    pub url: String,
    /// A Secret with the key `ca.crt`: the certificate authorities (PEM) that the server behind `url` is checked against.
    /// Unset, the public ones. Read when a logic starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
    /// How long an answer may take, in seconds. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4))]
    pub timeout_seconds: Option<i32>,
    /// How many answers each logic remembers, for as long as they say. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cache: Option<i32>,
}
