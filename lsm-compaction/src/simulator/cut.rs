use super::contents::{Contents, Population};
use super::workload::Workload;

/// A table remembers this many intervals of different density.
const SEGMENTS_MAX: usize = 16;

/// What a table with these contents takes on disk.
pub(super) fn bytes_of(contents: &Contents, population: &Population, workload: &Workload) -> f64 {
    let tombstones = contents.tombstones();
    let puts = (contents.entries(population) - tombstones).max(0.0);
    puts * workload.put_bytes() + tombstones * workload.key_bytes as f64
}

/// Merges runs, newest first, each a list of disjoint intervals by key.
pub(super) fn merge_runs(runs: &[Vec<Contents>], population: &Population, bottommost: bool) -> Vec<Contents> {
    let ends = runs.iter().flatten().flat_map(|part| [part.start, part.end]);
    let mut bounds: Vec<f64> = ends.collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    let mut next = vec![0; runs.len()];
    let mut merged = Vec::new();
    let mut parts = Vec::new();
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        parts.clear();
        for (run, next) in runs.iter().zip(&mut next) {
            while run.get(*next).is_some_and(|part| part.end <= start) {
                *next += 1;
            }
            if let Some(part) = run.get(*next).filter(|part| part.start <= start && part.end >= end) {
                parts.push(part.part(start, end));
            }
        }
        if !parts.is_empty() {
            merged.push(Contents::merge(&parts, population, bottommost));
        }
    }
    merged
}

/// Cuts a merged run into tables: at `target` bytes, and at one of `bounds` once a table is half as large. When
/// `coarse`, at the bounds alone.
pub(super) fn cut(
    segments: Vec<Contents>,
    bounds: &[f64],
    target: f64,
    coarse: bool,
    population: &Population,
    workload: &Workload,
) -> Vec<Vec<Contents>> {
    let mut tables = Vec::new();
    let mut table: Vec<Contents> = Vec::new();
    let mut table_bytes = 0.0;
    let mut bounds = bounds.iter().copied().peekable();
    for segment in segments {
        let mut rest = segment;
        loop {
            while bounds.next_if(|bound| *bound < rest.start).is_some() {}
            if bounds.peek() == Some(&rest.start)
                && !table.is_empty()
                && (coarse || table_bytes >= target / 2.0)
            {
                tables.push(coalesce(std::mem::take(&mut table)));
                table_bytes = 0.0;
            }
            let next_bound =
                bounds.clone().find(|bound| *bound > rest.start).filter(|bound| *bound < rest.end);
            let mut end = next_bound.unwrap_or(rest.end);
            let bytes = bytes_of(&rest, population, workload);
            let room = target - table_bytes;
            let full_at = rest.start + rest.width() * (room / bytes.max(f64::MIN_POSITIVE));
            // An interval too narrow to be divided stays whole.
            let divisible = full_at > rest.start || !table.is_empty();
            let fills = !coarse && full_at < end && divisible;
            if fills {
                end = full_at.max(rest.start);
            }
            let whole = end >= rest.end;
            if end > rest.start {
                let part = if whole { rest.clone() } else { rest.part(rest.start, end) };
                table_bytes += bytes_of(&part, population, workload);
                table.push(part);
            }
            if fills && !table.is_empty() {
                tables.push(coalesce(std::mem::take(&mut table)));
                table_bytes = 0.0;
            }
            if whole {
                break;
            }
            rest = rest.part(end, rest.end);
        }
    }
    if !table.is_empty() {
        tables.push(coalesce(table));
    }
    tables
}

/// Makes one interval of neighbours that are about as dense, and of all that touch if there are too many.
pub(super) fn coalesce(segments: Vec<Contents>) -> Vec<Contents> {
    let alike = |a: &Contents, b: &Contents| {
        let density =
            |part: &Contents| (part.fresh + part.drawn_keys()) / part.width().max(f64::MIN_POSITIVE);
        let (a_density, b_density) = (density(a), density(b));
        (a_density - b_density).abs() <= 0.2 * a_density.max(b_density)
            && (a.dead_share - b.dead_share).abs() < 0.2
    };
    let segments = join_neighbours(segments, alike);
    if segments.len() <= SEGMENTS_MAX {
        return segments;
    }
    join_neighbours(segments, |_, _| true)
}

fn join_neighbours(segments: Vec<Contents>, alike: impl Fn(&Contents, &Contents) -> bool) -> Vec<Contents> {
    let mut joined: Vec<Contents> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last) if last.end >= segment.start && alike(last, &segment) => {
                let drawn = last.drawn_keys() + segment.drawn_keys();
                if drawn > 0.0 {
                    last.dead_share = (last.tombstones() + segment.tombstones()) / drawn;
                }
                last.end = segment.end;
                last.fresh += segment.fresh;
                for (keys, more) in last.drawn.iter_mut().zip(&segment.drawn) {
                    *keys += more;
                }
            }
            _ => joined.push(segment),
        }
    }
    joined
}
