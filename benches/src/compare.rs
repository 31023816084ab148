//! `compare`: runs every engine in processes of their own and prints the report.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::report::{Measured, Report};
use crate::result::Result;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{Group, Selection, Workload};
use crate::{dispatch, machine};

/// Arguments of `compare`.
#[derive(Args)]
pub(crate) struct Compare {
    /// Engines, the one to be compared with the others first [default: all in this build]
    #[arg(long, value_delimiter = ',', value_parser = dispatch::NAMES.to_vec())]
    engines: Vec<String>,

    /// Workloads; those that they need run too [default: all]
    #[arg(long, value_delimiter = ',', hide_possible_values = true)]
    workloads: Vec<Workload>,

    /// Rounds; each runs everything once, with the engines in another order
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,

    /// Directory for the databases, on a real disk; each run makes a fresh one in it and removes it
    #[arg(long, default_value = "./target/bench-data")]
    dir: PathBuf,

    /// Also write every sample of every round to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

impl Compare {
    /// Runs everything, then prints the report.
    pub(crate) fn run(self) -> Result {
        let engines = if self.engines.is_empty() {
            dispatch::NAMES.iter().map(ToString::to_string).collect()
        } else {
            self.engines.clone()
        };
        fs::create_dir_all(&self.dir)
            .map_err(|error| format!("cannot make {}: {error}", self.dir.display()))?;
        let file_system =
            machine::file_system_of(&self.dir).unwrap_or_else(|| "unknown file system".to_owned());
        if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
            return Err(format!(
                "{} is on a {file_system}, which is memory; give --dir on a real disk",
                self.dir.display()
            )
            .into());
        }
        let mut report = Report::new(engines.clone());
        report.heading(&format!("{}, {file_system}", machine::description()));
        report.heading(&format!("{} rounds of `{}`", self.runs, self.settings.arguments().join(" ")));

        let selection = Selection::new(self.workloads.clone());
        let mut lines = match &self.json {
            Some(file) => {
                Some(File::create(file).map_err(|error| format!("cannot make {}: {error}", file.display()))?)
            }
            None => None,
        };
        for round in 0..self.runs {
            for &group in Group::value_variants().iter().filter(|group| selection.needs(**group)) {
                for turn in 0..engines.len() {
                    let engine = &engines[(turn + round as usize) % engines.len()];
                    eprintln!("round {} of {}: {group:?} group, {engine}", round + 1, self.runs);
                    for sample in self.measure(engine, group, &selection)? {
                        let mut line = sample.to_json();
                        line["engine"] = json!(engine);
                        line["round"] = json!(round);
                        if let Some(lines) = &mut lines {
                            writeln!(lines, "{line}")?;
                        }
                        report.add(Measured { engine: engine.clone(), round, sample });
                    }
                }
            }
        }
        print!("{report}");
        Ok(())
    }

    /// Runs one group on one engine in a process and a directory of its own.
    fn measure(&self, engine: &str, group: Group, selection: &Selection) -> Result<Vec<Sample>> {
        let dir = FreshDir::new(self.dir.join(format!("{engine}-{}", std::process::id())))?;
        let group = group.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["run", "--engine", engine, "--group", &group, "--workloads", &selection.names().join(",")])
            .arg("--dir")
            .arg(&dir.0)
            .args(self.settings.arguments())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut samples = Vec::new();
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        for line in lines {
            let line = line?;
            let sample = serde_json::from_str(&line).ok().and_then(|value| Sample::from_json(&value));
            let sample = sample.ok_or_else(|| format!("{engine} printed {line:?}, which is no sample"))?;
            let nanos = sample.nanos_per_op();
            eprintln!(
                "  {:<17} {:>10} ops of {}",
                sample.workload,
                sample.ops,
                crate::report::duration(nanos)
            );
            samples.push(sample);
        }
        let status = child.wait()?;
        if !status.success() {
            return Err(
                format!("{engine} failed in the {group} group ({status}); the comparison is void").into()
            );
        }
        Ok(samples)
    }
}

/// A directory that was empty at first and is removed at last.
struct FreshDir(PathBuf);

impl FreshDir {
    fn new(path: PathBuf) -> Result<Self> {
        remove(&path)?;
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for FreshDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("warning: {error}");
        }
    }
}

fn remove(dir: &Path) -> Result {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", dir.display()).into())
        }
        _ => Ok(()),
    }
}
