//! Deterministic simulation of delivery: job's ledger and queues, and comet's repeat filter and owners, are the real
//! ones; between them a model of one partition, its owners that come and go, streams that break, comets that restart or
//! are let go, and clients. Each seed is one schedule. Afterwards everything is let run to its end, and every client's
//! life is judged: each record once and in order, or told of a gap that there was reason for.
//!
//! The checker is checked by mutants: each breaks one rule that delivery rests on, and must be caught.

mod comet_model;
mod job_model;
mod moving;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::{Mutant, World};

/// Schedules that delivery must stand.
const SCHEDULES: u64 = if cfg!(debug_assertions) { 20_000 } else { 120_000 };
/// Schedules in which a mutant must be caught.
const UNTIL_CAUGHT: u64 = 500_000;

/// Runs schedules on two threads until one fails; returns its seed and what was wrong, and how many were run.
fn run(schedules: u64, world: impl Fn(u64) -> Result<(), String> + Sync) -> (Option<(u64, String)>, u64) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let found = std::sync::Mutex::new(None);
    let worker = || {
        while found.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= schedules {
                return;
            }
            if let Err(fault) = world(seed) {
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
    let (fault, done) = run(SCHEDULES, |seed| World::new(seed, Mutant::None).run());
    println!("{done} schedules");
    assert_eq!((fault, done), (None, SCHEDULES));
}

#[test]
fn whoever_breaks_a_rule_of_delivery_is_caught() {
    for mutant in Mutant::ALL {
        let (fault, done) = run(UNTIL_CAUGHT, |seed| World::new(seed, mutant).run());
        let (seed, fault) = fault.unwrap_or_else(|| panic!("{mutant:?} was not caught in {done} schedules"));
        println!("{mutant:?}: after {done} schedules, seed {seed}: {fault}");
    }
}

#[test]
fn in_every_schedule_a_key_that_moves_is_given_each_record_once_and_in_order_or_it_is_known_why_not() {
    let found = AtomicU64::new(0);
    let world = |seed| {
        moving::World::new(seed, moving::Mutant::None).run().map(|of_it| {
            found.fetch_add(of_it, Ordering::Relaxed);
        })
    };
    let (fault, done) = run(SCHEDULES, world);
    println!("{done} schedules, {} records found their key", found.load(Ordering::Relaxed));
    assert_eq!((fault, done), (None, SCHEDULES));
    assert!(found.into_inner() > SCHEDULES / 10);
}

#[test]
fn whoever_breaks_a_rule_of_looking_for_keys_is_caught() {
    for mutant in moving::Mutant::ALL {
        let (fault, done) = run(UNTIL_CAUGHT, |seed| moving::World::new(seed, mutant).run().map(drop));
        let (seed, fault) = fault.unwrap_or_else(|| panic!("{mutant:?} was not caught in {done} schedules"));
        println!("{mutant:?}: after {done} schedules, seed {seed}: {fault}");
    }
}
