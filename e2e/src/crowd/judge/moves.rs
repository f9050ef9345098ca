//! Closes, reconnects, moves and gaps.

use std::ops::Range;
use std::time::Duration;

use crate::crowd::{End, Record};

/// How clients moved during one phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Stays that ended otherwise than by the client's own will.
    pub closes: usize,
    /// How often clients came in again after such an end.
    pub reconnects: usize,
    /// How often clients went elsewhere before they left.
    pub moved: usize,
    /// Closes of clients that can move.
    pub cut: usize,
    /// How often a client was told that it was not given something (op 23).
    pub told: usize,
    /// Tries that did not get in.
    pub refusals: usize,
    /// Stays that ended by the client's own will: neither closes, nor are their ends reconnects or gaps.
    pub left: usize,
    /// The most closes and moves in any window.
    pub most_closes: usize,
    /// The most reconnects and moves in any window.
    pub most_reconnects: usize,
    /// The client with the most closes, and how many.
    pub worst: Option<(usize, usize)>,
    /// How long all of them together were out.
    pub out: Duration,
    /// How long clients were out that were closed in this phase; who stayed out counts until the end.
    pub gaps: Spread,
    /// The client of the longest gap.
    pub longest: Option<usize>,
}

/// Quantiles; zero when there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Spread {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Moves {
    pub(super) fn between(during: Range<Duration>, record: &Record, window: Duration) -> Self {
        let (mut moves, mut closes, mut reconnects, mut gaps) = (Self::default(), vec![], vec![], vec![]);
        let mut moved = vec![];
        for (client, life) in record.lives.iter().enumerate() {
            let before = closes.len();
            moved.extend(life.moves().filter(|at| during.contains(at)));
            for gap in life.gaps() {
                let here = during.contains(&gap.from);
                if gap.after == End::Left {
                    moves.left += usize::from(here);
                    continue;
                }
                if here {
                    closes.push(gap.from);
                    moves.cut += usize::from(life.movable);
                    gaps.push((gap.to.unwrap_or(record.ended).saturating_sub(gap.from), client));
                }
                reconnects.extend(gap.to.filter(|to| during.contains(to)));
            }
            let mine = closes.len() - before;
            if mine > moves.worst.map_or(0, |(_, most)| most) {
                moves.worst = Some((client, mine));
            }
            moves.refusals += life.refusals.iter().filter(|at| during.contains(*at)).count();
            moves.told += life.told.iter().filter(|told| during.contains(&told.at)).count();
        }
        gaps.sort_unstable();
        moves.out = gaps.iter().map(|(time, _)| *time).sum();
        let at = |quantile: f64| match gaps.len() {
            0 => Duration::ZERO,
            count => gaps[((count as f64 * quantile).ceil() as usize).clamp(1, count) - 1].0,
        };
        moves.gaps = Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) };
        moves.longest = gaps.last().map(|(_, client)| *client);
        (moves.closes, moves.reconnects, moves.moved) = (closes.len(), reconnects.len(), moved.len());
        closes.extend(&moved);
        reconnects.extend(moved);
        (moves.most_closes, moves.most_reconnects) = (most(closes, window), most(reconnects, window));
        moves
    }
}

/// The most of these moments that lie within one window, wherever it begins.
fn most(mut moments: Vec<Duration>, window: Duration) -> usize {
    moments.sort_unstable();
    let (mut most, mut first) = (0, 0);
    for (last, at) in moments.iter().enumerate() {
        while *at - moments[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}
