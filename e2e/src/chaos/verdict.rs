//! What chaos explains and what it does not: beside the crowd's judge, who only knows what clients went through, this knows
//! what befell whom.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Suffered, World};
use crate::bench::push::Pushed;
use crate::crowd::{Gap, Life, Record, Report, Told};

/// How long a push may have been on its way to a client whose connection ended meanwhile, on the average.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// How long after a client came back it may be told of a push that was looking for it while it was out: job does for 10 s.
const LOOKED_FOR: Duration = Duration::from_secs(15);
/// How many deliveries clients may be told that they were not given, in a run that is long enough to say.
const TOLD: f64 = 0.001;
/// A run that is: one comet that is let go in a minute takes more than that.
const LONG: Duration = Duration::from_secs(600);

/// Pushes that found nobody while Redis did not know who is where: `data.records` said so to whoever pushed, so nobody is
/// owed them. Returns how many. Those that found somebody are owed to everybody they name.
pub fn forgive(pushed: &mut [Pushed], suffered: &[Suffered]) -> usize {
    let forgets = |at| suffered.iter().filter_map(|one| one.forgets.as_ref()).any(|time| time.contains(&at));
    let to_nobody = pushed.iter_mut().filter(|push| push.accepted && push.records == 0 && forgets(push.sent));
    to_nobody.map(|push| push.accepted = false).count()
}

/// What is wrong, a sentence each: connections that ended, and gaps that were told, though nothing had befallen their own
/// comet and the client had not just come back from another; too many that were told; more that were excused than were sent to clients that were out.
pub fn faults(record: &Record, report: &Report, suffered: &[Suffered]) -> Vec<String> {
    let gaps =
        record.lives.iter().enumerate().flat_map(|(client, life)| life.gaps().into_iter().map(move |g| (client, g)));
    let closed = gaps.filter(|(_, gap)| !ends(suffered, gap.server, gap.from)).map(|(client, gap): (usize, Gap)| {
        let at = seconds(record, gap.from);
        format!("client {client} lost its connection to {} at {at:.1} s: {:?}", name(gap.server), gap.after)
    });
    let told = record.lives.iter().enumerate().flat_map(|(client, life)| {
        let at = |at| life.stays[life.stay_at(at)].server;
        let is_explained = move |told: &&Told| ends(suffered, at(told.at), told.at) || is_of_absence(life, told);
        let without_reason = life.told.iter().filter(move |told| !is_explained(told));
        without_reason.map(move |told| {
            let (at, server) = (seconds(record, told.at), at(told.at));
            format!("client {client} was told by {} of a gap at {at:.1} s: {}", name(server), told.reason)
        })
    });
    let (all, may) = (&report.total, explained(report));
    let excused = (all.pushes.excused > may).then(|| format!("{} are excused, {may} may be", all.pushes.excused));
    let most = (all.pushes.expected as f64 * TOLD) as u64;
    let too_many = (all.took >= LONG && all.pushes.told > most)
        .then(|| format!("clients were told of {} that they were not given, of {most} they may be", all.pushes.told));
    closed.chain(told).chain(excused).chain(too_many).collect()
}

/// The gaps that clients were told of: a line for each comet, reason and second.
pub fn gaps(record: &Record) -> Vec<String> {
    let mut all = BTreeMap::<_, (usize, u64)>::new();
    for life in &record.lives {
        for told in &life.told {
            let server = name(life.stays[life.stay_at(told.at)].server);
            let (clients, dropped) = all.entry((seconds(record, told.at) as u64, server, &told.reason)).or_default();
            (*clients, *dropped) = (*clients + 1, told.dropped.max(*dropped));
        }
    }
    let line = |((at, server, reason), (clients, dropped)): (_, (usize, u64))| {
        format!("{server} told {clients} clients at {at} s: {reason}, {dropped} messages")
    };
    all.into_iter().map(line).collect()
}

/// How many deliveries may be excused: what is sent to a client while it is out, and before each of its ends.
pub fn explained(report: &Report) -> u64 {
    let all = &report.total;
    let rate = all.pushes.expected as f64 / (report.clients as f64 * all.took.as_secs_f64());
    (rate * (all.moves.out + IN_FLIGHT * all.moves.closes as u32).as_secs_f64()) as u64
}

/// Whether what was sent to a client while it was out came to where it is when something later had.
fn is_of_absence(life: &Life, told: &Told) -> bool {
    let stay = life.stay_at(told.at);
    stay > 0 && told.reason == "overtaken" && told.at - life.stays[stay].entered <= LOOKED_FOR
}

fn ends(suffered: &[Suffered], server: usize, at: Duration) -> bool {
    suffered.iter().any(|one| one.ends(World::comet_of(server), at))
}

fn name(server: usize) -> String {
    World::name_of(World::comet_of(server))
}

fn seconds(record: &Record, at: Duration) -> f64 {
    at.saturating_sub(record.began).as_secs_f64()
}

#[cfg(test)]
mod tests;
