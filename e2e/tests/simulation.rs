//! Deterministic simulation of delivery: job's ledger and queues, and comet's repeat filter and owners, are the real
//! ones; between them a model of one partition, its owners that come and go, streams that break, comets that restart or
//! are let go, and clients. Each seed is one schedule. Afterwards everything is let run to its end, and every client's
//! life is judged: each record once and in order, or told of a gap that there was reason for.
//!
//! The checker is checked by mutants: each breaks one rule that delivery rests on, and must be caught.

mod comet_model;
mod job_model;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::{Mutant, World};

/// Schedules that delivery must stand.
const SCHEDULES: u64 = if cfg!(debug_assertions) { 20_000 } else { 120_000 };
/// Schedules in which a mutant must be caught.
const UNTIL_CAUGHT: u64 = 50_000;

/// Runs schedules on two threads until one fails; returns its seed and what was wrong, and how many were run.
fn run(mutant: Mutant, schedules: u64) -> (Option<(u64, String)>, u64) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let found = std::sync::Mutex::new(None);
    let worker = || {
        while found.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= schedules {
                return;
            }
            if let Err(fault) = World::new(seed, mutant).run() {
                *found.lock().unwrap() = Some((seed, fault));
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    (found.into_inner().unwrap(), done.into_inner())
}

#[test]
fn in_every_schedule_each_record_arrives_once_and_in_order_or_is_told_missing() {
    let (fault, done) = run(Mutant::None, SCHEDULES);
    println!("{done} schedules");
    assert_eq!((fault, done), (None, SCHEDULES));
}

#[test]
fn whoever_breaks_a_rule_of_delivery_is_caught() {
    for mutant in Mutant::ALL {
        let (fault, done) = run(mutant, UNTIL_CAUGHT);
        let (seed, fault) = fault.unwrap_or_else(|| panic!("{mutant:?} was not caught in {done} schedules"));
        println!("{mutant:?}: after {done} schedules, seed {seed}: {fault}");
    }
}
