//! The end-to-end tests, a lane a file: one program, because linking the services once for each would take longer than most
//! of them run.

#![allow(clippy::unwrap_used)]

mod broken;
mod chaos;
mod charts;
mod consumer;
mod delivery;
mod docs;
mod elsewhere;
mod floor;
mod graceful;
mod hostile;
mod identity;
mod image;
mod imcluster;
mod interest;
mod killed;
mod kubernetes;
mod missed;
mod moved;
mod neighbours;
mod online;
mod outages;
mod page;
mod pod;
mod queue;
mod secured;
mod settings;
mod simulation;
mod standalone;
mod store;
mod traces;
