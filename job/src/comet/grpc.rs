//! A comet over gRPC: goim's service, and ours beside it.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use proto::comet::comet_client::CometClient;
use proto::delivery::delivery_client::DeliveryClient;
use proto::delivery::{ClaimReply, ClaimReq, HelloReply, HelloReq};
use proto::grpc::tls::Tls;
use proto::grpc::traced;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{Call, Comet, CometError, Link};

/// How long one call may take. goim's job waits for ever, so that one hung comet stops delivery to all.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// A channel to one address; connects on first use and again by itself.
#[derive(Clone, Debug)]
pub struct GrpcComet {
    comet: CometClient<Channel>,
    delivery: DeliveryClient<Channel>,
}

impl GrpcComet {
    /// A comet at `host:port`.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn new(address: &str) -> Result<Self, String> {
        Self::over(address, None)
    }

    /// The same, over `tls` when given.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn over(address: &str, tls: Option<&Tls>) -> Result<Self, String> {
        let channel = proto::grpc::channel_over(address, DEADLINE, tls)
            .map_err(|error| format!("comet address `{address}`: expected host:port: {error}"))?;
        Ok(Self {
            comet: CometClient::new(channel.clone())
                .max_decoding_message_size(proto::grpc::MAX_MESSAGE)
                .max_encoding_message_size(proto::grpc::MAX_MESSAGE),
            // One answer names the keys of many frames that are not there.
            delivery: DeliveryClient::new(channel)
                .max_decoding_message_size(proto::grpc::MAX_MESSAGE)
                .max_encoding_message_size(proto::grpc::MAX_MESSAGE),
        })
    }
}

#[async_trait]
impl Comet for GrpcComet {
    async fn hello(&self) -> Result<HelloReply, CometError> {
        within(self.delivery.clone().hello(HelloReq {})).await
    }

    async fn deliver(&self) -> Result<Link, CometError> {
        let (down, frames) = mpsc::unbounded_channel();
        let mut delivery = self.delivery.clone();
        let mut up = within(delivery.deliver(UnboundedReceiverStream::new(frames))).await?;
        let first = tokio::time::timeout(DEADLINE, up.message()).await;
        let first = first.map_err(|_| CometError::Away(format!("no credit within {DEADLINE:?}")))?;
        let welcome = first.map_err(error)?.ok_or_else(|| CometError::Away("the stream ended at once".to_owned()))?;
        Ok(Link { credit: welcome.credit, down, up: Box::pin(up.map_err(error)) })
    }

    async fn claim(&self, claim: ClaimReq) -> Result<ClaimReply, CometError> {
        within(self.delivery.clone().claim(claim)).await
    }

    async fn send(&self, call: Call, traceparent: Option<&str>) -> Result<Vec<String>, CometError> {
        // Clones of a client share its channel.
        let mut comet = self.comet.clone();
        match call {
            Call::Push(request) => {
                within(comet.push_msg(traced(request, traceparent))).await.map(|reply| reply.not_here)
            }
            Call::Broadcast(request) => within(comet.broadcast(traced(request, traceparent))).await.map(|_| vec![]),
            Call::Room(request) => within(comet.broadcast_room(traced(request, traceparent))).await.map(|_| vec![]),
            Call::Kick(request) => {
                within(self.delivery.clone().kick(traced(request, traceparent))).await.map(|_| vec![])
            }
        }
    }
}

async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CometError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(error),
        Err(_) => Err(CometError::Away(format!("no answer within {DEADLINE:?}"))),
    }
}

/// What a comet that streams said of one frame.
pub(super) fn said(code: i32, text: String) -> CometError {
    error(Status::new(Code::from_i32(code), text))
}

/// A Go comet's own errors are `Unknown` with a text; they are final, as in goim. tonic calls it `Unknown` too when a
/// connection breaks in the middle of a call, which for grpc-go is `UNAVAILABLE`.
fn error(status: Status) -> CometError {
    if is_broken(&status) {
        return CometError::Away(status.to_string());
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => CometError::Away(status.to_string()),
        Code::FailedPrecondition if status.message().contains("fenced") => CometError::Fenced,
        Code::Unimplemented => CometError::Unimplemented,
        code => CometError::Refused { reason: name(code), text: status.message().to_owned() },
    }
}

/// Whether the connection failed: then there are errors below, and none of them is somebody's status.
fn is_broken(status: &Status) -> bool {
    let mut below = status.source();
    let is_broken = below.is_some();
    while let Some(error) = below {
        if error.is::<Status>() {
            return false;
        }
        below = error.source();
    }
    is_broken
}

fn name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::PermissionDenied => "permission_denied",
        Code::Unauthenticated => "unauthenticated",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::OutOfRange => "out_of_range",
        Code::Internal => "internal",
        Code::DataLoss => "data_loss",
        Code::Aborted => "aborted",
        Code::AlreadyExists => "already_exists",
        _ => "unknown",
    }
}
