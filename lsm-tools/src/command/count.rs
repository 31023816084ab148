use std::path::PathBuf;

use clap::Args;

use super::scan::RangeArgs;
use crate::database::FollowArg;
use crate::exit::Result;
use crate::output::Output;
use crate::progress::Progress;

/// Count the records of a range
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm count lsm-demo
  lsm count lsm-demo --prefix Japan/")]
pub(crate) struct Count {
    /// Directory of the database
    db: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    follow: FollowArg,
}

impl Count {
    pub(crate) fn run(self) -> Result<()> {
        const PROGRESS_STEP: u64 = 1 << 16;
        let db = self.follow.open_for_reading(&self.db)?;
        let progress = Progress::count("counting", None);
        let mut count = 0_u64;
        for record in self.range.records(&db)? {
            record?;
            count += 1;
            if count.is_multiple_of(PROGRESS_STEP) {
                progress.set(count);
            }
        }
        drop(progress);
        let mut out = Output::stdout();
        out.line(format_args!("{count}"))?;
        out.flush()
    }
}
