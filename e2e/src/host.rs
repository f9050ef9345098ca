//! Where a process lives: on this machine's loopback, or in a network namespace with an address of its own; and what time it
//! is there.

mod clock;

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

use crate::os;
use crate::ports::Port;
pub use clock::Clock;

/// One place; clones are the same.
#[derive(Clone, Debug)]
pub struct Host {
    address: Ipv4Addr,
    namespace: Option<Arc<File>>,
    clock: Option<Clock>,
}

impl Host {
    /// This machine's 127.0.0.1.
    pub fn loopback() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, namespace: None, clock: None }
    }

    /// A network namespace, and the address in it that others reach it by.
    pub(crate) fn apart(address: Ipv4Addr, namespace: Arc<File>) -> Self {
        Self { address, namespace: Some(namespace), clock: None }
    }

    /// The same with a clock of its own.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Its clock, if it has one of its own.
    pub fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref()
    }

    /// By what others reach it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A port of it to listen on.
    ///
    /// # Errors
    /// As [`Port::free`].
    pub fn port(&self) -> anyhow::Result<Port> {
        Ok(Port::free()?.of(self.address))
    }

    /// Lets a command run there.
    pub fn inside(&self, mut command: Command) -> Command {
        if let Some(namespace) = &self.namespace {
            os::start_in_network(&mut command, namespace.clone());
        }
        if let Some(clock) = &self.clock {
            clock.give(&mut command);
        }
        command
    }
}
