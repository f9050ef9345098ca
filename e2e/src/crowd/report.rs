//! What the judge found: a table with a column per phase, and below it what is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::judge::{Limits, Loss, Moves, Pushes, Twist};
use crate::bench::stream::Address;

/// The narrowest column, in characters.
const COLUMN: usize = 8;

/// The verdict. Printed, it is a table in Markdown.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many clients.
    pub clients: usize,
    /// From mark to mark.
    pub phases: Vec<Phase>,
    /// The whole run.
    pub total: Phase,
    /// What came to clients that can move.
    pub wire: Wire,
    /// Arrivals at a client that nobody had sent to it.
    pub strays: u64,
    /// The first few losses.
    pub losses: Vec<Loss>,
    /// The first few repeats and inversions.
    pub twists: Vec<Twist>,
    /// The longest that a push was on its way, or the most that it may be.
    pub on_its_way: Duration,
    /// When every client had been in once: what losses are timed from.
    pub began: Duration,
    /// Why clients were not let in or lost their connection, and how often.
    pub reasons: BTreeMap<String, u64>,
    /// What is beyond the limits, a sentence each. Empty when all is well.
    pub faults: Vec<String>,
}

/// What came over connections with ids, so that it could be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// All of it.
    pub given: u64,
    /// What the client had been given before, and dropped.
    pub again: u64,
}

/// One phase, or all of it.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What its mark said.
    pub name: String,
    /// How long it was.
    pub took: Duration,
    /// Closes, reconnects and gaps.
    pub moves: Moves,
    /// What became of the pushes sent in it.
    pub pushes: Pushes,
}

impl Report {
    /// What of it is beyond these limits.
    pub(super) fn against(&self, limits: &Limits) -> Vec<String> {
        let (mut faults, all) = (Vec::new(), &self.total);
        let (closes, reconnects) = (all.moves.most_closes, all.moves.most_reconnects);
        for (what, most) in [("closes and moves", closes), ("reconnects and moves", reconnects)] {
            if most > limits.moves {
                faults.push(format!("{most} {what} within {:?}: at most {} are allowed", limits.window, limits.moves));
            }
        }
        for phase in &self.phases {
            if let Some((client, closes)) = phase.moves.worst.filter(|(_, closes)| *closes > limits.closes_each) {
                let allowed = limits.closes_each;
                faults.push(format!(
                    "{}: client {client} was closed {closes} times: at most {allowed} are allowed",
                    phase.name
                ));
            }
            if let Some(client) = phase.moves.longest.filter(|_| phase.moves.gaps.max > limits.gap) {
                let (max, allowed) = (phase.moves.gaps.max, limits.gap);
                faults.push(format!(
                    "{}: client {client} was out for {max:.1?}: at most {allowed:?} are allowed",
                    phase.name
                ));
            }
            for (count, most, what) in [
                (phase.moves.cut, limits.cut, "closes of clients that can move"),
                (phase.moves.told, limits.told, "times clients were told of a gap"),
            ] {
                if count > most {
                    faults.push(format!("{}: {count} {what}: at most {most} are allowed", phase.name));
                }
            }
            let Pushes { lost, repeats, inversions, .. } = phase.pushes;
            let on_one = "on one connection";
            for (count, what, where_) in [
                (lost, "lost", "outside of their receivers' gaps"),
                (repeats, "repeated", on_one),
                (inversions, "out of order", on_one),
            ] {
                if count > 0 {
                    faults.push(format!("{}: {count} deliveries {what} {where_}", phase.name));
                }
            }
        }
        if self.strays > 0 {
            faults.push(format!("{} arrivals at clients that nobody had sent them to", self.strays));
        }
        faults
    }
}

impl Phase {
    /// What the table says of it, row by row.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let (moves, pushes) = (&self.moves, &self.pushes);
        let worst = moves.worst.map_or(0, |(_, closes)| closes);
        let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
        let millis = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
        vec![
            ("seconds", format!("{:.0}", self.took.as_secs_f64())),
            ("closes", moves.closes.to_string()),
            ("reconnects", moves.reconnects.to_string()),
            ("moves", moves.moved.to_string()),
            ("closes and moves in a window, most", moves.most_closes.to_string()),
            ("reconnects and moves in a window, most", moves.most_reconnects.to_string()),
            ("closes of one client, most", worst.to_string()),
            ("closes of clients that can move", moves.cut.to_string()),
            ("told of a gap", moves.told.to_string()),
            ("not let in", moves.refusals.to_string()),
            ("left by themselves", moves.left.to_string()),
            ("out together, s", seconds(moves.out)),
            ("gap p50, s", seconds(moves.gaps.p50)),
            ("gap p99, s", seconds(moves.gaps.p99)),
            ("gap max, s", seconds(moves.gaps.max)),
            ("pushes accepted", pushes.accepted.to_string()),
            ("pushes refused", pushes.refused.to_string()),
            ("deliveries expected", pushes.expected.to_string()),
            ("delivered", pushes.delivered.to_string()),
            ("excused: sent in own gap", pushes.excused.to_string()),
            ("told of: op 23", pushes.told.to_string()),
            ("lost", pushes.lost.to_string()),
            ("repeats", pushes.repeats.to_string()),
            ("inversions", pushes.inversions.to_string()),
            ("seen before a reconnect", pushes.across.to_string()),
            ("latency p50, ms", millis(pushes.latency.p50_us)),
            ("latency p99, ms", millis(pushes.latency.p99_us)),
            ("latency max, ms", millis(pushes.latency.max_us)),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases: Vec<&Phase> = self.phases.iter().chain([&self.total]).collect();
        let columns: Vec<_> = phases.iter().map(|phase| phase.rows()).collect();
        let width = |phase: &Phase| phase.name.chars().count().max(COLUMN);
        let first = columns[0].iter().map(|(row, _)| row.len()).max().unwrap_or(0);
        let head = format!("{} clients", self.clients);
        write!(f, "| {head:first$} |")?;
        phases.iter().try_for_each(|phase| write!(f, " {:>1$} |", phase.name, width(phase)))?;
        write!(f, "\n|{}|", "-".repeat(first + 2))?;
        phases.iter().try_for_each(|phase| write!(f, "{}:|", "-".repeat(width(phase) + 1)))?;
        for row in 0..columns[0].len() {
            write!(f, "\n| {:first$} |", columns[0][row].0)?;
            for (phase, column) in phases.iter().zip(&columns) {
                write!(f, " {:>1$} |", column[row].1, width(phase))?;
            }
        }
        write!(f, "\n\nlatency counts from when a push was due; ")?;
        writeln!(f, "the slowest was on its way for {:.0?}; {} strays", self.on_its_way, self.strays)?;
        if self.wire.given > 0 {
            let (Wire { given, again }, share) = (self.wire, self.wire.again as f64 / self.wire.given as f64);
            writeln!(f, "{again} of {given} came again to clients that can move ({:.3} %)", share * 100.0)?;
        }
        self.reasons.iter().try_for_each(|(reason, count)| writeln!(f, "{count:>8} × {reason}"))?;
        self.losses.iter().try_for_each(|loss| self.show(loss, f))?;
        self.twists.iter().try_for_each(|twist| self.show_twist(twist, f))?;
        match self.faults.len() {
            0 => write!(f, "no fault"),
            _ => self.faults.iter().try_for_each(|fault| writeln!(f, "FAULT {fault}")),
        }
    }
}

impl Report {
    fn show(&self, loss: &Loss, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |time: Duration| format!("{:.3}", time.as_secs_f64() - self.began.as_secs_f64());
        let Loss { client, push, server, gaps } = loss;
        let (address, number, answer) = (Address::of(push.stream), push.number, push.answered - push.sent);
        write!(
            f,
            "lost by client {client}: {address:?} number {number}, sent at {} s, answered in {answer:?}; at server {server} it ",
            at(push.sent)
        )?;
        if gaps.is_empty() {
            return writeln!(f, "was never out");
        }
        f.write_str("was out")?;
        for gap in gaps {
            write!(f, " {}–{} (of {})", at(gap.from), gap.to.map_or("the end".to_owned(), at), gap.server)?;
        }
        f.write_str("\n")
    }

    fn show_twist(&self, twist: &Twist, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |time: Duration| format!("{:.3} s", time.as_secs_f64() - self.began.as_secs_f64());
        let Twist { client, push, server, first, at: came } = twist;
        let (address, number) = (Address::of(push.stream), push.number);
        let what =
            first.map_or("after a later one".to_owned(), |first| format!("again, for the first time at {}", at(first)));
        let answer = if push.accepted { "accepted" } else { "refused" };
        write!(
            f,
            "to client {client} at server {server}: {address:?} number {number}, sent at {}, {answer} at {}, ",
            at(push.sent),
            at(push.answered)
        )?;
        writeln!(f, "came at {} {what}", at(*came))
    }
}
