use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Result;
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  lsm completions bash > /etc/bash_completion.d/lsm
  lsm completions zsh > \"${fpath[1]}/_lsm\"
  lsm completions fish > ~/.config/fish/completions/lsm.fish")]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Prints the script for this command line.
    pub(crate) fn run(self, mut cli: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli, "lsm", &mut script);
        let mut out = Output::stdout();
        out.raw(&script)?;
        out.flush()
    }
}
