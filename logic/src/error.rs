//! What becomes a gRPC status. A comet tells three kinds apart: `Unavailable` means try again, `Unauthenticated` means
//! come back with a newer token, anything else means the client is refused. goim's own errors are plain text with code `Unknown`, and a Go comet treats every error alike.

use tonic::Status;

use crate::auth::{AuthError, Denied};
use crate::queue::QueueError;
use crate::session::Refused;
use crate::store::StoreError;

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Store(error) => error.into(),
            Refused::Auth(AuthError::Away(away)) => Self::unavailable(away.to_string()),
            Refused::Auth(AuthError::Denied(Denied::Expired)) => Self::unauthenticated(refused.to_string()),
            Refused::Auth(_) | Refused::TooMany { .. } => Self::unknown(refused.to_string()),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<QueueError> for Status {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooLarge => Self::unknown(error.to_string()),
            QueueError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}
