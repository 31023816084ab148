//! A leaderboard that is read while games are being played: who leads now, who led at half-time, who is around me.
//!
//! ```text
//! cargo run -p lsm-memtable --example leaderboard
//! ```
//!
//! An entry's key is the score, inverted so that the best comes first, and the name; so the board is sorted by being
//! there. A new score is a delete of the old key and a put of the new one. All versions stay, so the board of any
//! earlier moment can be read, with the sequence number of that moment, while the writer goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::{Cursor, SEQUENCE_MAX, SequenceNumber, ValueKind};
use lsm_memtable::{BPlusMemtable, Full, MemtableFactory, MemtableReader, MemtableWriter};

fn board_key(score: u32, player: &str) -> Vec<u8> {
    [&(!score).to_be_bytes()[..], player.as_bytes()].concat()
}

fn parse(key: &[u8]) -> Option<(u32, &str)> {
    let (score, player) = key.split_first_chunk::<4>()?;
    Some((!u32::from_be_bytes(*score), std::str::from_utf8(player).ok()?))
}

/// The one who keeps the scores.
struct Referee {
    writer: Box<dyn MemtableWriter>,
    scores: HashMap<String, u32>,
    sequence: SequenceNumber,
    /// Readers see the board as of this number.
    published: Arc<AtomicU64>,
}

impl Referee {
    fn add(&mut self, player: &str, points: u32) -> Result<(), Full> {
        let old = self.scores.get(player).copied();
        let new = old.unwrap_or(0) + points;
        if let Some(old) = old {
            self.sequence += 1;
            self.writer.insert(&board_key(old, player), self.sequence, ValueKind::Delete, b"")?;
        }
        self.sequence += 1;
        self.writer.insert(&board_key(new, player), self.sequence, ValueKind::Put, b"")?;
        self.scores.insert(player.to_owned(), new);
        // Only now, so that nobody sees a player twice or not at all.
        self.published.store(self.sequence, Ordering::Release);
        Ok(())
    }
}

/// Up to `count` players from the internal key `(from, SEQUENCE_MAX)` on, as of `moment`.
fn board(
    table: &Arc<dyn MemtableReader>,
    from: &[u8],
    moment: SequenceNumber,
    count: usize,
) -> Vec<(u32, String)> {
    let mut cursor = Arc::clone(table).cursor();
    let mut places = Vec::new();
    let mut decided: Option<Vec<u8>> = None;
    cursor.seek(from, SEQUENCE_MAX);
    while let (Some(entry), true) = (cursor.entry(), places.len() < count) {
        // The newest version that the moment knows decides about a key; the older ones are history.
        if entry.sequence <= moment && decided.as_deref() != Some(entry.key) {
            decided = Some(entry.key.to_vec());
            if !entry.kind.is_tombstone() {
                places.extend(parse(entry.key).map(|(score, player)| (score, player.to_owned())));
            }
        }
        cursor.next();
    }
    places
}

fn print(title: &str, places: &[(u32, String)]) {
    println!("{title}");
    for (score, player) in places {
        println!("  {score:>5}  {player}");
    }
}

fn main() -> Result<(), Full> {
    const ROUNDS: u64 = 50_000;
    let players = ["ada", "barbara", "edsger", "grace", "john", "leslie", "niklaus", "tony"];

    let (writer, table) = BPlusMemtable::default().create();
    let published = Arc::new(AtomicU64::new(0));
    let mut referee =
        Referee { writer, scores: HashMap::new(), sequence: 0, published: Arc::clone(&published) };
    for player in players {
        referee.add(player, 0)?;
    }

    let half_time = std::thread::scope(|scope| {
        // A spectator who looks all the time: everybody is on the board exactly once, whenever he looks.
        let spectator = scope.spawn(|| {
            let mut looks = 0;
            loop {
                let moment = published.load(Ordering::Acquire);
                let places = board(&table, b"", moment, usize::MAX);
                assert_eq!(places.len(), players.len());
                looks += 1;
                if moment > ROUNDS {
                    return looks;
                }
            }
        });
        let mut half_time = 0;
        let mut dice = 1_u64;
        for round in 0..ROUNDS {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let player = players[(dice >> 33) as usize % players.len()];
            referee.add(player, (dice >> 60) as u32)?;
            if round == ROUNDS / 2 {
                half_time = referee.sequence;
            }
        }
        println!("A spectator looked {} times meanwhile.", spectator.join().expect("no panic"));
        Ok(half_time)
    })?;

    let now = published.load(Ordering::Acquire);
    print("The first three at half-time:", &board(&table, b"", half_time, 3));
    print("The first three now:", &board(&table, b"", now, 3));
    let score = referee.scores["grace"];
    print("Grace and who follows her:", &board(&table, &board_key(score, "grace"), now, 3));
    println!("{} versions in {} KiB", table.entry_count(), table.memory_bytes() >> 10);
    Ok(())
}
