use clap::Parser;

use crate::engine::model::{
    FINDS_EVERYTHING, FORGETS_AT_CLOSE, HONEST, IGNORES_DELETES, KEEPS_OLD_VALUES, LOSES_A_PUT, Model,
    SCRIBBLES, SKIPS_A_ROW,
};
use crate::result::Result;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{Group, Selection, Workload};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn settings() -> Settings {
    let line = ["", "--num", "1000", "--open-num", "500", "--sync-num", "100", "--value-bytes", "64"];
    Line::parse_from(line).settings
}

fn run<const FAULT: u8>(group: Group, workloads: &[Workload]) -> Result<Vec<Sample>> {
    let dir = tempfile::tempdir()?;
    let mut samples = Vec::new();
    let selection = Selection::new(workloads.to_vec());
    super::run::<Model<FAULT>>(group, &selection, dir.path(), &settings(), &mut |sample| {
        samples.push(sample);
    })?;
    Ok(samples)
}

fn names(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|sample| sample.workload.as_str()).collect()
}

#[test]
fn every_workload_runs_and_tells_its_operations() {
    let samples = run::<HONEST>(Group::Random, &[]).unwrap();
    assert_eq!(
        names(&samples),
        [
            "fillrandom",
            "readhot",
            "settle",
            "readrandom",
            "readmissing",
            "scan",
            "seek10",
            "overwrite",
            "readwhilewriting",
            "writewhilereading",
            "deleterandom",
            "scandeleted",
        ]
    );
    let ops = |name| samples.iter().find(|sample| sample.workload == name).map(|sample| sample.ops);
    assert_eq!((ops("scan"), ops("seek10"), ops("scandeleted")), (Some(1000), Some(250), Some(500)));
    assert_eq!(names(&run::<HONEST>(Group::Sequential, &[]).unwrap()), ["fillseq"]);
    // This one has no way to load a sorted stream.
    assert_eq!(names(&run::<HONEST>(Group::Bulk, &[]).unwrap()), [""; 0]);
    assert_eq!(names(&run::<HONEST>(Group::Sync, &[]).unwrap()), ["fillsync", "fillsync8"]);
    assert_eq!(names(&run::<HONEST>(Group::Open, &[]).unwrap()), ["close", "open"]);
}

#[test]
fn only_what_was_asked_for_and_what_that_needs_runs() {
    let samples = run::<HONEST>(Group::Random, &[Workload::Scan]).unwrap();
    assert_eq!(names(&samples), ["fillrandom", "settle", "scan"]);
    let selection = Selection::new(vec![Workload::Scan, Workload::Open]);
    assert!(selection.needs(Group::Random) && selection.needs(Group::Open) && !selection.needs(Group::Sync));
}

#[test]
fn wrong_answers_of_an_engine_are_errors() {
    use Workload::{DeleteRandom, FillSeq, FillSync, Open, Overwrite, ReadMissing, ReadRandom, Scan, Seek10};
    for result in [
        run::<LOSES_A_PUT>(Group::Sequential, &[FillSeq]),
        run::<LOSES_A_PUT>(Group::Random, &[ReadRandom]),
        run::<LOSES_A_PUT>(Group::Sync, &[FillSync]),
        run::<SCRIBBLES>(Group::Random, &[ReadRandom]),
        run::<SCRIBBLES>(Group::Random, &[Scan]),
        run::<KEEPS_OLD_VALUES>(Group::Random, &[Overwrite, DeleteRandom]),
        run::<IGNORES_DELETES>(Group::Random, &[DeleteRandom]),
        run::<SKIPS_A_ROW>(Group::Random, &[Scan]),
        run::<SKIPS_A_ROW>(Group::Random, &[Seek10]),
        run::<FINDS_EVERYTHING>(Group::Random, &[ReadMissing]),
        run::<FORGETS_AT_CLOSE>(Group::Open, &[Open]),
    ] {
        assert!(result.is_err(), "only {:?}", names(&result.unwrap_or_default()));
    }
}

#[test]
fn settings_survive_the_way_to_a_child_process() {
    let settings = Settings { seed: 77, ..settings() };
    let line = std::iter::once(String::new()).chain(settings.arguments());
    assert_eq!(format!("{:?}", Line::parse_from(line).settings), format!("{settings:?}"));
}
