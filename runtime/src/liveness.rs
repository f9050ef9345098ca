//! Whether the process can still do its work. If it cannot, and only a restart helps, `/live` says so.

use std::sync::Arc;

use parking_lot::Mutex;

/// What keeps the process from ever working again. Cheap to clone; at first there is nothing.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    stuck: Arc<Mutex<Option<String>>>,
}

impl Liveness {
    /// Says why only a restart can help, or that none is needed.
    pub fn set(&self, stuck: Option<String>) {
        *self.stuck.lock() = stuck;
    }

    /// Why only a restart can help.
    pub fn stuck(&self) -> Option<String> {
        self.stuck.lock().clone()
    }
}
