//! Pushes of one round for one kind of client, in one piece: what a channel hands to its socket.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::{Push, Variant};

/// Bytes of one or more pushes in one piece, with where each begins.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) bytes: Bytes,
    pub(super) frames: Rc<[(usize, Arc<Push>)]>,
    pub(super) messages: u64,
}

impl Batch {
    /// The frames of `pushes` for one variant. A single push is shared as it is.
    pub fn new(pushes: &[Arc<Push>], variant: Variant) -> Self {
        let bytes = match pushes {
            [push] => push.frame(variant).clone(),
            _ => {
                let mut joined = Vec::with_capacity(pushes.iter().map(|push| push.frame(variant).len()).sum());
                pushes.iter().for_each(|push| joined.extend_from_slice(push.frame(variant)));
                joined.into()
            }
        };
        let mut end = 0;
        let frames = pushes
            .iter()
            .map(|push| {
                end += push.frame(variant).len();
                (end, push.clone())
            })
            .collect();
        Self { bytes, frames, messages: pushes.iter().map(|push| push.messages() as u64).sum() }
    }
}
