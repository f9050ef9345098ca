//! What each process of a world holds, in memory and open files: at first, at most, and when all was last at peace.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use super::World;
use crate::bench::cost;

/// How often processes are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// What a process may hold at peace, beside what it held at first and one file for each client.
const AT_PEACE: Held = Held { bytes: 64 << 20, files: 100 };
/// The same at any time.
const AT_WORST: Held = Held { bytes: 256 << 20, files: 1000 };

/// What a world's processes were seen to hold, by name.
#[derive(Debug, Default)]
pub struct Watch(Mutex<BTreeMap<String, Seen>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    bytes: u64,
    files: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Held,
    most: Held,
    last: Held,
}

impl Watch {
    /// Looks at each process once; one that is dead just now holds nothing.
    pub fn look(&self, world: &World) {
        for (name, process) in world.processes() {
            let held =
                cost::rss(process.pid()).and_then(|bytes| Ok(Held { bytes, files: cost::files(process.pid())? }));
            if let Ok(held) = held {
                self.note(name, held);
            }
        }
    }

    /// Looks again and again.
    pub async fn go_on(&self, world: &World) -> Infallible {
        loop {
            self.look(world);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Who holds too much, now that all is at peace with so many clients, or ever did; a sentence each.
    pub fn faults(&self, clients: u64) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, Seen { first, most, last }) in &*self.0.lock() {
            for (held, beside, when) in [(last, AT_PEACE, "at peace"), (most, AT_WORST, "once")] {
                if held.bytes > first.bytes + beside.bytes || held.files > first.files + clients + beside.files {
                    faults.push(format!("{name} held {held} {when}, and {first} at first"));
                }
            }
        }
        faults
    }

    fn note(&self, name: String, held: Held) {
        let mut all = self.0.lock();
        let seen = all.entry(name).or_insert(Seen { first: held, most: held, last: held });
        seen.last = held;
        seen.most = Held { bytes: held.bytes.max(seen.most.bytes), files: held.files.max(seen.most.files) };
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} MiB, {} files", self.bytes >> 20, self.files))
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| process | at first             | at most              | in the end           |")?;
        write!(f, "|---------|----------------------|----------------------|----------------------|")?;
        let all = self.0.lock();
        all.iter().try_for_each(|(name, seen)| {
            write!(f, "\n| {name:7} | {:20} | {:20} | {:20} |", seen.first, seen.most, seen.last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Held = Held { bytes: 30 << 20, files: 50 };

    fn faults(then: &[Held]) -> Vec<String> {
        let watch = Watch::default();
        watch.note("job1".to_owned(), FIRST);
        then.iter().for_each(|held| watch.note("job1".to_owned(), *held));
        watch.faults(300)
    }

    #[test]
    fn who_holds_more_than_he_may_is_named() {
        let (big, many) = (Held { bytes: 95 << 20, ..FIRST }, Held { files: 451, ..FIRST });
        assert!(faults(&[Held { bytes: 94 << 20, files: 450 }]).is_empty());
        assert_eq!(faults(&[big]), ["job1 held 95 MiB, 50 files at peace, and 30 MiB, 50 files at first"]);
        assert_eq!(faults(&[many]).len(), 1);
        assert!(faults(&[big, many, FIRST]).is_empty(), "it was for a while");
        assert!(faults(&[Held { bytes: 287 << 20, ..FIRST }, FIRST])[0].contains("287 MiB, 50 files once"));
    }
}
